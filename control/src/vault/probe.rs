//! Asks a vendor whether a stored secret works.
//!
//! Invariant: one request, to the one address that was checked; no redirect is
//! followed, no proxy of the environment is used, and neither secret nor URL
//! appears in an error or a log.

use std::net::SocketAddr;
use std::time::Duration;

use clawgate_shared::catalogue::AuthForm;
use clawgate_shared::seal::SecretBinding;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use reqwest::{Client, Url, redirect};
use zeroize::Zeroizing;

use super::{Vault, VaultError};
use crate::store::provider_keys::SealedColumns;

/// Longest wait for a connection, and for the whole answer.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(10);
/// Bytes of the answer that are looked at.
const MAX_BODY: usize = 16 << 10;

/// What to ask.
#[derive(Clone, Copy, Debug)]
pub struct Probe<'a> {
    /// Whole, but for the credential.
    pub url: &'a str,
    /// The host in it.
    pub host: &'a str,
    /// What it stands for: this address is connected to and no other.
    pub address: SocketAddr,
    /// How the secret is presented.
    pub form: &'a AuthForm,
    /// What the vendor demands beside it.
    pub headers: &'a [(&'static str, &'a str)],
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeAnswer {
    /// The vendor said something.
    Answered {
        /// HTTP status.
        status: u16,
        /// The beginning of the body; it may quote the secret.
        body: Vec<u8>,
    },
    /// Nothing that is an answer came in time.
    Silent,
}

impl Vault {
    /// Presents a stored secret (`None`: the vendor wants none) to its vendor.
    ///
    /// # Errors
    /// The row does not open under its binding.
    pub async fn probe(
        &self,
        probe: Probe<'_>,
        sealed: Option<(&SecretBinding<'_>, &SealedColumns)>,
    ) -> Result<ProbeAnswer, VaultError> {
        let secret = match sealed {
            Some((binding, row)) => Some(self.open_secret(binding, row)?),
            None => None,
        };
        Ok(ask(probe, secret.as_ref()).await.unwrap_or(ProbeAnswer::Silent))
    }
}

/// `None`: no answer.
async fn ask(probe: Probe<'_>, secret: Option<&Zeroizing<Vec<u8>>>) -> Option<ProbeAnswer> {
    let mut url = Url::parse(probe.url).ok()?;
    let mut headers = HeaderMap::new();
    for (name, value) in probe.headers {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).ok()?);
    }
    if let Some(secret) = secret {
        present(&mut headers, &mut url, probe.form, secret)?;
    }
    // A process has one; whoever was first chose the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder()
        .no_proxy()
        .http1_only()
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT)
        .timeout(ANSWER)
        .resolve(probe.host, probe.address)
        .build()
        .ok()?;
    let mut answer = client.get(url).headers(headers).send().await.ok()?;
    let status = answer.status().as_u16();
    let mut body = Vec::new();
    // A body that breaks off does not take the status back.
    while let Ok(Some(chunk)) = answer.chunk().await {
        body.extend_from_slice(chunk.get(..MAX_BODY - body.len()).unwrap_or(&chunk));
        if body.len() >= MAX_BODY {
            break;
        }
    }
    Some(ProbeAnswer::Answered { status, body })
}

/// Puts the secret where the vendor looks for it.
fn present(headers: &mut HeaderMap, url: &mut Url, form: &AuthForm, secret: &[u8]) -> Option<()> {
    let (name, prefix) = match form {
        AuthForm::Bearer => (header::AUTHORIZATION, "Bearer "),
        AuthForm::XApiKey => (HeaderName::from_static("x-api-key"), ""),
        AuthForm::XGoogApiKey => (HeaderName::from_static("x-goog-api-key"), ""),
        AuthForm::ApiKey => (HeaderName::from_static("api-key"), ""),
        AuthForm::Query(name) => {
            url.query_pairs_mut().append_pair(name, std::str::from_utf8(secret).ok()?);
            return Some(());
        }
        AuthForm::None => return Some(()),
    };
    let text = Zeroizing::new([prefix.as_bytes(), secret].concat());
    let mut value = HeaderValue::from_bytes(&text).ok()?;
    value.set_sensitive(true);
    headers.insert(name, value);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_stands_where_the_form_says() {
        for (form, name, wanted) in [
            (AuthForm::Bearer, "authorization", "Bearer sk-1"),
            (AuthForm::XApiKey, "x-api-key", "sk-1"),
            (AuthForm::XGoogApiKey, "x-goog-api-key", "sk-1"),
            (AuthForm::ApiKey, "api-key", "sk-1"),
        ] {
            let (mut headers, mut url) = (HeaderMap::new(), Url::parse("https://v.example/models").expect("url"));
            present(&mut headers, &mut url, &form, b"sk-1").expect("plain");
            assert_eq!(headers.get(name).map(HeaderValue::as_bytes), Some(wanted.as_bytes()));
            assert!(!format!("{headers:?} {url}").contains("sk-1"), "{headers:?}");
        }
        let (mut headers, mut url) = (HeaderMap::new(), Url::parse("https://v.example/models?a=1").expect("url"));
        present(&mut headers, &mut url, &AuthForm::Query("key".into()), b"s&1").expect("plain");
        assert_eq!((headers.len(), url.query()), (0, Some("a=1&key=s%261")));
    }
}
