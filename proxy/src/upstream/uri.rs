//! The request target of an attempt. Pure.

use http::Uri;

use super::client::Failure;
use crate::routing::Credential;

/// Path, query, and the credential when it travels there.
///
/// # Errors
/// What came of it is no URI.
pub fn target_uri(mut path: String, query: Option<&str>, credential: &Credential) -> Result<Uri, Failure> {
    if let Some(query) = query {
        path.push('?');
        path.push_str(query);
    }
    if let Credential::Query(pair) = credential {
        path.push(if path.contains('?') { '&' } else { '?' });
        path.push_str(pair);
    }
    Uri::try_from(path).map_err(|_| Failure::bad_request_target())
}

#[cfg(test)]
mod tests {
    use clawgate_shared::catalogue::AuthForm;

    use super::*;

    #[test]
    fn a_credential_is_added_to_any_query() {
        let key = Credential::new(&AuthForm::Query("key".into()), b"k").expect("plain");
        for (path, query, wanted) in
            [("/v1", None, "/v1?key=k"), ("/v1", Some("a=1"), "/v1?a=1&key=k"), ("/v1?a=1", None, "/v1?a=1&key=k")]
        {
            assert_eq!(target_uri(path.to_owned(), query, &key).expect("a uri").to_string(), wanted);
        }
        let plain = target_uri("/v1//x".to_owned(), Some(""), &Credential::None).expect("a uri");
        assert_eq!(plain.to_string(), "/v1//x?");
    }
}
