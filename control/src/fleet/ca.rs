//! The private certificate authority: it signs the gRPC server's certificate
//! and every node's. Nothing else trusts it, and it trusts nothing else.

use std::time::Duration;

use clawgate_shared::clock;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use zeroize::Zeroizing;

/// The name every node expects in the gRPC server's certificate, whatever
/// address it dials.
pub const SERVER_NAME: &str = "clawgate-control";
/// How long a node's certificate lasts; nodes renew at two thirds.
pub const NODE_CERTIFICATE_LIFE: Duration = Duration::from_secs(30 * DAY);
/// The authority outlives every machine it is installed on; replacing it means
/// enrolling every node again.
pub const AUTHORITY_LIFE: Duration = Duration::from_secs(20 * 365 * DAY);
/// Certificates begin this much in the past, for nodes whose clock is behind.
const BACKDATE: Duration = Duration::from_secs(3600);
const DAY: u64 = 24 * 60 * 60;
/// Largest certificate request that is looked at, in bytes.
const MAX_CSR: usize = 16 * 1024;
const NODE_URI: &str = "clawgate://node/";
const RUNNER_URI: &str = "clawgate://runner/";

/// What can go wrong with certificates.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The request is no PKCS#10 with a valid signature of its own key.
    #[error("the certificate request is not valid")]
    Request,
    /// A configured server name is neither a host name nor an address.
    #[error("server name {0:?} is neither a host name nor an address")]
    ServerName(String),
    /// Making or reading key or certificate failed.
    #[error("certificate authority: {0}")]
    Internal(#[from] rcgen::Error),
}

/// The authority, ready to sign.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
}

/// A certificate and its private key, both PEM.
pub struct ServerIdentity {
    /// Leaf only.
    pub certificate_pem: String,
    /// PKCS#8.
    pub key_pem: Zeroizing<String>,
}

/// What a node gets.
#[derive(Clone, Debug)]
pub struct NodeCertificate {
    /// PEM, leaf only.
    pub pem: String,
    /// Unix microseconds.
    pub expires_at: i64,
}

/// A checked certificate request: only its public key is used, whatever names
/// or usages it asks for.
pub struct NodeRequest {
    params: CertificateSigningRequestParams,
}

impl NodeRequest {
    /// # Errors
    /// Not a PKCS#10 request, too large, or not signed by its own key.
    pub fn parse(der: &[u8]) -> Result<Self, CaError> {
        if der.len() > MAX_CSR {
            return Err(CaError::Request);
        }
        let params = CertificateSigningRequestParams::from_der(&der.to_vec().into()).map_err(|_| CaError::Request)?;
        Ok(Self { params })
    }

    /// SHA-256 of the public key: how the same node is recognised when it
    /// comes again.
    #[must_use]
    pub fn key_fingerprint(&self) -> [u8; 32] {
        use rcgen::PublicKeyData as _;
        Sha256::digest(self.params.public_key.subject_public_key_info()).into()
    }
}

impl Authority {
    /// Makes a new authority.
    ///
    /// # Errors
    /// No random bytes, or the key could not be made.
    pub fn create() -> Result<(Self, Zeroizing<String>), CaError> {
        let key = KeyPair::generate()?;
        let key_pem = Zeroizing::new(key.serialize_pem());
        let mut params = base_params("Clawgate node authority", AUTHORITY_LIFE);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate_pem = params.self_signed(&key)?.pem();
        Ok((Self { issuer: Issuer::new(params, key), certificate_pem }, key_pem))
    }

    /// Takes up an authority made earlier.
    ///
    /// # Errors
    /// Key or certificate cannot be read.
    pub fn load(certificate_pem: String, key_pem: &str) -> Result<Self, CaError> {
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, KeyPair::from_pem(key_pem)?)?;
        Ok(Self { issuer, certificate_pem })
    }

    /// What nodes pin.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// A fresh identity for the gRPC server. Its key lives in memory only, and
    /// the certificate lasts as long as the authority, so that a server that
    /// is never restarted never expires.
    ///
    /// # Errors
    /// One of `names` is neither a host name nor an address.
    pub fn server_identity(&self, names: &[String]) -> Result<ServerIdentity, CaError> {
        let key = KeyPair::generate()?;
        let mut params = base_params(SERVER_NAME, AUTHORITY_LIFE);
        for name in std::iter::once(SERVER_NAME).chain(names.iter().map(String::as_str)) {
            params.subject_alt_names.push(match name.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.try_into().map_err(|_| CaError::ServerName(name.to_owned()))?),
            });
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let certificate_pem = params.signed_by(&key, &self.issuer)?.pem();
        Ok(ServerIdentity { certificate_pem, key_pem: Zeroizing::new(key.serialize_pem()) })
    }

    /// Signs a node's certificate over the public key of `request`.
    ///
    /// # Errors
    /// `node_id` cannot stand in a URI, or signing failed.
    pub fn sign_node(&self, node_id: &str, request: &NodeRequest) -> Result<NodeCertificate, CaError> {
        self.sign(NODE_URI, node_id, request)
    }

    /// Signs a runner's certificate over the public key of `request`.
    ///
    /// # Errors
    /// As [`Self::sign_node`].
    pub fn sign_runner(&self, runner_id: &str, request: &NodeRequest) -> Result<NodeCertificate, CaError> {
        self.sign(RUNNER_URI, runner_id, request)
    }

    fn sign(&self, kind: &str, id: &str, request: &NodeRequest) -> Result<NodeCertificate, CaError> {
        let mut params = base_params(id, NODE_CERTIFICATE_LIFE);
        let uri = format!("{kind}{id}");
        params.subject_alt_names.push(SanType::URI(uri.try_into().map_err(|_| CaError::Request)?));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let pem = params.signed_by(&request.params.public_key, &self.issuer)?.pem();
        let life = i64::try_from(NODE_CERTIFICATE_LIFE.as_micros()).unwrap_or(i64::MAX);
        Ok(NodeCertificate { pem, expires_at: clock::now_micros().saturating_add(life) })
    }
}

/// The node that a verified client certificate names; `None` when it names
/// none, or more than one.
#[must_use]
pub fn node_of_certificate(der: &[u8]) -> Option<String> {
    only_name(der, NODE_URI)
}

/// The runner that a verified client certificate names; `None` when it names
/// none, or more than one.
#[must_use]
pub fn runner_of_certificate(der: &[u8]) -> Option<String> {
    only_name(der, RUNNER_URI)
}

fn only_name(der: &[u8], kind: &str) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let mut nodes = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix(kind),
        _ => None,
    });
    let node = nodes.next()?;
    nodes.next().is_none().then(|| node.to_owned())
}

fn base_params(common_name: &str, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    let now = Duration::from_micros(u64::try_from(clock::now_micros()).unwrap_or(0));
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(BACKDATE);
    params.not_after = epoch + now + life;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.use_authority_key_identifier_extension = true;
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(key: &KeyPair) -> Vec<u8> {
        let mut params = CertificateParams::default();
        // names that a request must not be able to smuggle in
        params.subject_alt_names.push(SanType::URI("clawgate://node/node_evil".try_into().expect("uri")));
        params.serialize_request(key).expect("request").der().to_vec()
    }

    fn der(pem: &str) -> Vec<u8> {
        x509_parser::pem::parse_x509_pem(pem.as_bytes()).expect("pem").1.contents
    }

    #[test]
    fn a_node_certificate_names_the_node_it_was_made_for_and_nothing_the_request_asked_for() {
        let (made, key_pem) = Authority::create().expect("authority");
        let authority = Authority::load(made.certificate_pem().to_owned(), &key_pem).expect("loads");
        let key = KeyPair::generate().expect("key");
        let parsed = NodeRequest::parse(&request(&key)).expect("valid request");
        let certificate = authority.sign_node("node_1", &parsed).expect("signs");
        let leaf = der(&certificate.pem);
        assert_eq!(node_of_certificate(&leaf).as_deref(), Some("node_1"));
        let (_, leaf) = X509Certificate::from_der(&leaf).expect("parses");
        let ca = der(made.certificate_pem());
        let (_, ca) = X509Certificate::from_der(&ca).expect("parses");
        leaf.verify_signature(Some(ca.public_key())).expect("signed by the authority");
        assert!(!leaf.is_ca());
        let days = (leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp()) / 86_400;
        assert_eq!(days, 30);
    }

    #[test]
    fn the_same_key_is_recognised_and_rubbish_is_refused() {
        let (one, two) = (KeyPair::generate().expect("key"), KeyPair::generate().expect("key"));
        let print = |key| NodeRequest::parse(&request(key)).expect("valid").key_fingerprint();
        assert_eq!(print(&one), print(&one));
        assert_ne!(print(&one), print(&two));
        let mut forged = request(&one);
        let last = forged.len() - 1;
        forged[last] ^= 1;
        for bad in [forged, vec![], vec![0x30; 40], vec![0; MAX_CSR + 1]] {
            assert!(matches!(NodeRequest::parse(&bad), Err(CaError::Request)));
        }
    }

    #[test]
    fn server_names_may_be_names_or_addresses() {
        let (authority, _) = Authority::create().expect("authority");
        assert!(authority.server_identity(&["control.internal".into(), "10.0.0.1".into()]).is_ok());
        assert!(matches!(authority.server_identity(&["n\u{e4}me".into()]), Err(CaError::ServerName(_))));
        assert_eq!(node_of_certificate(&der(authority.certificate_pem())), None);
    }
}
