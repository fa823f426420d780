//! The text of an enrolment token: what a new node needs to find and trust us.
//!
//! `cge1_` and then base64url of JSON `{"t": "<secret>", "ca": "<PEM>"}`: the
//! secret opens the door, the authority's certificate makes sure that the door
//! is ours.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use zeroize::Zeroizing;

/// What the text begins with.
pub const PREFIX: &str = "cge1_";

#[derive(Serialize)]
struct Parts<'a> {
    t: &'a str,
    ca: &'a str,
}

/// The text form.
#[must_use]
pub fn text(secret: &str, ca_pem: &str) -> Zeroizing<String> {
    // Two strings always serialise.
    let json = Zeroizing::new(serde_json::to_vec(&Parts { t: secret, ca: ca_pem }).unwrap_or_default());
    let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + json.len() * 4 / 3 + 4));
    text.push_str(PREFIX);
    URL_SAFE_NO_PAD.encode_string(json.as_slice(), &mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_holds_secret_and_certificate() {
        let text = text("cge_secret", "-----BEGIN\n");
        let json = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX).expect("prefix")).expect("base64url");
        assert_eq!(json, br#"{"t":"cge_secret","ca":"-----BEGIN\n"}"#);
    }
}
