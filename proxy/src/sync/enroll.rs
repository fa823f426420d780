//! Becoming a node of a control plane, and staying one: enrolment with a
//! one-time token (or over the Unix socket without), renewal.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clawgate_shared::clock;
use clawgate_shared::proto::node::fleet_client::FleetClient;
use clawgate_shared::proto::node::{EnrollRequest, EnrollResponse, RenewRequest};
use clawgate_shared::seal::SealingKey;
use serde::Deserialize;
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;
use tonic::{Code, Status};
use zeroize::{Zeroize, Zeroizing};

use super::channel::{ControlTarget, TargetError, source_text};
use super::identity::{Identity, IdentityCell, IdentityError, TlsIdentity};
use crate::metering::Backoff;

/// What a token's text begins with.
const PREFIX: &str = "cge1_";
/// Longest text of a token, in bytes.
const MAX_TOKEN: usize = 64 * 1024;
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// Backdating of certificates by the control plane is none of our business; a
/// life shorter than this is not believed.
const SHORTEST_LIFE: i64 = 60 * 1_000_000;

/// Why a node is not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// Its files.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The address or the certificates.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The text is no enrolment token.
    #[error("the enrolment token is not one: it begins with {PREFIX} and is used as it was printed")]
    TokenForm,
    /// There is neither a saved identity nor a token.
    #[error("this node is not enrolled with {0} and has no enrolment token")]
    TokenMissing(String),
    /// The control plane said no; asking again does not help.
    #[error("the control plane refused the enrolment: {0}")]
    Refused(String),
    /// The control plane is away or failed; asking again may help.
    #[error("the control plane cannot be asked: {0}")]
    Away(String),
    /// The answer lacks something.
    #[error("the control plane's answer to the enrolment is not usable: {0}")]
    Answer(&'static str),
}

impl EnrollError {
    /// Whether to try again.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Away(_))
    }
}

/// The two parts of a token's text.
#[derive(Deserialize)]
struct Token {
    #[serde(rename = "t")]
    secret: String,
    ca: String,
}

impl Drop for Token {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

fn parse_token(text: &str) -> Result<Token, EnrollError> {
    let body = text.trim().strip_prefix(PREFIX).filter(|body| body.len() <= MAX_TOKEN);
    let json = body.and_then(|body| URL_SAFE_NO_PAD.decode(body).ok()).map(Zeroizing::new);
    let token = json.and_then(|json| serde_json::from_slice::<Token>(&json).ok());
    token.filter(|token| !token.secret.is_empty() && !token.ca.is_empty()).ok_or(EnrollError::TokenForm)
}

impl Identity {
    /// The saved identity, without any network, or a new one, for which the
    /// control plane is asked until it answers.
    ///
    /// # Errors
    /// Damaged files, no token where one is needed, or a refusal.
    pub async fn load_or_enroll(
        data_dir: &Path,
        control: &ControlTarget,
        enroll_token: Option<&Zeroizing<String>>,
    ) -> Result<Arc<Self>, EnrollError> {
        let cell = IdentityCell::open(data_dir)?;
        cell.ensure(control, enroll_token, env!("CARGO_PKG_VERSION")).await
    }
}

impl IdentityCell {
    /// As [`Identity::load_or_enroll`].
    pub(super) async fn ensure(
        &self,
        control: &ControlTarget,
        token: Option<&Zeroizing<String>>,
        software_version: &str,
    ) -> Result<Arc<Identity>, EnrollError> {
        let mut backoff = Backoff::default();
        loop {
            if let Some(identity) = self.load().filter(|identity| fits(identity, control, token.is_some())) {
                return Ok(identity);
            }
            match self.enroll(control, token, software_version).await {
                Ok(_) => {}
                Err(error) if error.is_transient() => {
                    tracing::info!(%error, "this node is not enrolled yet; it tries again");
                    sleep(backoff.next_delay()).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks once. Returns whether the sealing key is another than before.
    pub(super) async fn enroll(
        &self,
        control: &ControlTarget,
        token: Option<&Zeroizing<String>>,
        software_version: &str,
    ) -> Result<bool, EnrollError> {
        let mut request = EnrollRequest {
            node_id: self.node_id().to_owned(),
            software_version: software_version.to_owned(),
            ..EnrollRequest::default()
        };
        let (channel, ca_pem) = match control {
            ControlTarget::Unix(_) => (control.channel("", None)?, None),
            ControlTarget::Tls(_) => {
                let text = token.ok_or_else(|| EnrollError::TokenMissing(control.to_string()))?;
                let token = parse_token(text)?;
                request.token.clone_from(&token.secret);
                request.csr_der = self.csr_der()?;
                (control.channel(&token.ca, None)?, Some(token.ca.clone()))
            }
        };
        let mut client = FleetClient::new(channel);
        let answer = timeout(ANSWER, client.enroll(request)).await.map_err(|_| no_answer())?;
        let answer = answer.map_err(|status| from_status(&status))?.into_inner();
        Ok(self.replace(self.identity_of(answer, ca_pem)?)?)
    }

    /// A new certificate over the present one.
    pub(super) async fn renew(&self, channel: Channel, old: &TlsIdentity) -> Result<Arc<Identity>, EnrollError> {
        let request = RenewRequest { node_id: self.node_id().to_owned(), csr_der: self.csr_der()? };
        let mut client = FleetClient::new(channel);
        let answer = timeout(ANSWER, client.renew(request)).await.map_err(|_| no_answer())?;
        let answer = answer.map_err(|status| from_status(&status))?.into_inner();
        self.replace(self.identity_of(answer, Some(old.ca_pem.clone()))?)?;
        self.load().ok_or(EnrollError::Answer("it was not kept"))
    }

    /// `pinned`: the authority that vouched for the channel; `None` over the
    /// Unix socket.
    fn identity_of(&self, mut answer: EnrollResponse, pinned: Option<String>) -> Result<Identity, EnrollError> {
        let sealing_key = SealingKey::from_slice(&answer.sealing_key);
        answer.sealing_key.zeroize();
        let sealing_key = sealing_key.map_err(|_| EnrollError::Answer("no sealing key"))?;
        let Some(pinned) = pinned else { return Ok(Identity { sealing_key, tls: None }) };
        if answer.certificate_pem.is_empty() {
            return Err(EnrollError::Answer("no certificate"));
        }
        let now = clock::now_micros();
        if answer.certificate_expires_at_micros < now.saturating_add(SHORTEST_LIFE) {
            return Err(EnrollError::Answer("the certificate has no future; compare the clocks"));
        }
        let tls = TlsIdentity {
            key_pem: self.key_pem(),
            certificate_pem: std::mem::take(&mut answer.certificate_pem),
            ca_pem: if answer.ca_pem.is_empty() { pinned } else { std::mem::take(&mut answer.ca_pem) },
            issued_at_micros: now,
            expires_at_micros: answer.certificate_expires_at_micros,
        };
        Ok(Identity { sealing_key, tls: Some(tls) })
    }
}

/// Whether a saved identity serves for this control plane. An expired one does
/// as long as there is no token to get a new one with: what is saved can still
/// be served.
fn fits(identity: &Identity, control: &ControlTarget, has_token: bool) -> bool {
    match (control, &identity.tls) {
        (ControlTarget::Unix(_), _) => true,
        (ControlTarget::Tls(_), None) => false,
        (ControlTarget::Tls(_), Some(tls)) => !(has_token && tls.is_expired(clock::now_micros())),
    }
}

fn no_answer() -> EnrollError {
    EnrollError::Away("no answer in time".to_owned())
}

/// The status's own text is for humans and holds no secret; a transport error
/// says what matters only at its root.
fn from_status(status: &Status) -> EnrollError {
    match status.code() {
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Unauthenticated
        | Code::Unimplemented => EnrollError::Refused(status.message().to_owned()),
        _ => EnrollError::Away(source_text(status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_two_parts_and_says_nothing_when_it_has_not() {
        let good = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(br#"{"t":"cge_x","ca":"pem"}"#));
        let token = parse_token(&format!("{good}\n")).expect("parses");
        assert_eq!((token.secret.as_str(), token.ca.as_str()), ("cge_x", "pem"));
        for bad in ["", "cge_x", "cge1_", "cge1_!!", &good[..20], &format!("{PREFIX}e30")] {
            let error = parse_token(bad).err().map(|error| error.to_string()).expect("refuses");
            assert!(bad.len() < 6 || !error.contains(bad), "{error}");
        }
    }

    #[tokio::test]
    async fn without_identity_and_token_there_is_nothing_to_wait_for() {
        let data = tempfile::tempdir().expect("temporary directory");
        let control: ControlTarget = "https://127.0.0.1:1".parse().expect("target");
        let result = Identity::load_or_enroll(data.path(), &control, None).await;
        assert!(matches!(result, Err(EnrollError::TokenMissing(_))));
        let token = Zeroizing::new("cge_wrong".to_owned());
        let result = Identity::load_or_enroll(data.path(), &control, Some(&token)).await;
        assert!(matches!(result, Err(EnrollError::TokenForm)));
    }
}
