//! TLS of a listener: the certificate that counts now, and the handshake.
//!
//! The handshake is made here and not in pingora's accept loop, so that a
//! connection has its place, and a deadline of ours, before the first byte.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora_core::listeners::tls::Acceptor;
use pingora_core::protocols::Stream;
use pingora_core::protocols::l4::stream::Stream as L4Stream;
use pingora_timeout::timeout;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::telemetry::Metrics;

/// Longest handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(2);
/// Largest file that is read; a chain has some kilobytes.
const MAX_FILE: u64 = 1 << 20;

/// A certificate chain and its key, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Leaf first.
    pub certificate: PathBuf,
    /// PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// The bytes of both files.
type Pems = (Vec<u8>, zeroize::Zeroizing<Vec<u8>>);

/// One listener's TLS.
#[derive(Clone)]
pub(super) struct Tls {
    files: TlsFiles,
    current: Arc<Current>,
    acceptor: Arc<Acceptor>,
}

/// What new handshakes are given.
#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files. HTTP/2 is offered before HTTP/1.1.
    pub(super) fn open(files: &TlsFiles) -> std::io::Result<Self> {
        let certified = certified(&read(files)?)?;
        let current = Arc::new(Current(ArcSwap::from_pointee(certified)));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = &[&rustls::version::TLS13, &rustls::version::TLS12];
        let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions);
        let builder = builder.map_err(|error| bad(&error.to_string()))?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(current.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = Arc::new(Acceptor::from_server_config(Arc::new(config)));
        Ok(Self { files: files.clone(), current, acceptor })
    }

    /// The connection under TLS; `None`: no handshake came about in time.
    pub(super) async fn handshake(&self, stream: Stream) -> Option<Stream> {
        let plain = stream.into_any().downcast::<L4Stream>().ok()?;
        match timeout(HANDSHAKE, self.acceptor.tls_handshake(*plain)).await {
            Ok(Ok(stream)) => Some(Box::new(stream)),
            // Scanners and clients that do not trust us: nothing to act upon.
            Ok(Err(error)) => {
                tracing::debug!(%error, "no TLS handshake");
                None
            }
            Err(_) => None,
        }
    }

    /// Takes new files into use as they come, for ever. Connections under way
    /// keep what they have; a pair that does not fit together changes nothing.
    pub(super) async fn reload(self, metrics: Arc<Metrics>) {
        let mut seen = read(&self.files).ok();
        // What did not fit together at the last look, and whether that was said:
        // of two files one is written first.
        let mut odd: Option<(Pems, bool)> = None;
        loop {
            tokio::time::sleep(EVERY).await;
            let files = self.files.clone();
            let Ok(now) = tokio::task::spawn_blocking(move || read(&files)).await else { return };
            let outcome = match now {
                // A file that is being replaced is there again at a later look.
                Err(_) => continue,
                Ok(pems) if seen.as_ref() == Some(&pems) => continue,
                Ok(pems) => match (certified(&pems), &odd) {
                    (Ok(key), _) => {
                        self.current.0.store(Arc::new(key));
                        (seen, odd) = (Some(pems), None);
                        Ok(())
                    }
                    (Err(_), Some((before, true))) if *before == pems => continue,
                    (Err(error), Some((before, false))) if *before == pems => {
                        odd = Some((pems, true));
                        Err(error)
                    }
                    (Err(_), _) => {
                        odd = Some((pems, false));
                        continue;
                    }
                },
            };
            metrics.certificate_reloaded(outcome.is_ok());
            match outcome {
                Ok(()) => tracing::info!("a new TLS certificate is in use"),
                Err(error) => tracing::error!(%error, "the new TLS certificate is not used; the old one stays"),
            }
        }
    }
}

fn bad(what: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidInput, format!("TLS: {what}"))
}

fn read(files: &TlsFiles) -> std::io::Result<Pems> {
    let bounded = |path: &PathBuf| {
        use std::io::Read as _;
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(MAX_FILE).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(bytes)
    };
    let what = |which: &str, path: &PathBuf, error: &std::io::Error| {
        bad(&format!("the {which} file {} cannot be read: {error}", path.display()))
    };
    let certificate = bounded(&files.certificate).map_err(|e| what("certificate", &files.certificate, &e))?;
    let key = bounded(&files.key).map_err(|e| what("key", &files.key, &e))?;
    Ok((certificate, key.into()))
}

/// Checks that the pair can serve: both are PEM, the leaf can be read, and the
/// key is the leaf's.
fn certified((certificate, key): &Pems) -> std::io::Result<CertifiedKey> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .map_err(|_| bad("the certificate file is not PEM"))?;
    if chain.is_empty() {
        return Err(bad("the certificate file holds no certificate"));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| bad("the key file is not PEM"))?;
    let provider = rustls::crypto::ring::default_provider();
    CertifiedKey::from_der(chain, key, &provider).map_err(|error| bad(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().expect("key");
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("params");
        (params.self_signed(&key).expect("certificate").pem(), key.serialize_pem())
    }

    #[test]
    fn only_a_pair_that_fits_together_is_taken() {
        let folder = tempfile::tempdir().expect("folder");
        let files = TlsFiles { certificate: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
        let (one, other) = (pair("a.test"), pair("b.test"));
        let write = |certificate: &str, key: &str| {
            std::fs::write(&files.certificate, certificate).expect("written");
            std::fs::write(&files.key, key).expect("written");
            Tls::open(&files).map(drop)
        };
        write(&one.0, &one.1).expect("a pair");
        for (certificate, key) in [(one.0.as_str(), other.1.as_str()), ("", one.1.as_str()), (one.0.as_str(), "x")] {
            assert!(write(certificate, key).is_err());
        }
        std::fs::remove_file(&files.key).expect("removed");
        let error = Tls::open(&files).expect_err("no key").to_string();
        assert!(error.contains("key.pem"), "{error}");
    }
}
