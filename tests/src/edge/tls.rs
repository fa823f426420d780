//! Certificates for a listener, and a blocking TLS client that trusts them.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::http::IO_LIMIT;
use crate::stack::Service;

/// A certificate for `localhost` with its key, PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

/// A TLS connection.
pub type Secure = StreamOwned<ClientConnection, TcpStream>;

impl Pair {
    /// A fresh one that signs itself.
    ///
    /// # Panics
    /// There is no randomness.
    #[must_use]
    pub fn fresh() -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        Self { certificate: params.self_signed(&key).expect("signed").pem(), key: key.serialize_pem() }
    }

    /// Its bytes as they go over the wire.
    ///
    /// # Panics
    /// It is no PEM.
    #[must_use]
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("PEM")
    }

    /// Writes it as `cert.pem` and `key.pem`, each whole at once.
    ///
    /// # Panics
    /// The folder cannot be written to.
    #[must_use]
    pub fn write(&self, folder: &Path) -> (PathBuf, PathBuf) {
        let put = |name: &str, text: &str| {
            let (path, new) = (folder.join(name), folder.join(format!("{name}.new")));
            std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, &path)).expect("written");
            path
        };
        (put("cert.pem", &self.certificate), put("key.pem", &self.key))
    }

    /// Gives a node's data listener this certificate, and a plain listener
    /// beside it (as for bots in containers).
    pub fn serve_on(&self, node: &mut Service, folder: &Path) {
        let (certificate, key) = self.write(folder);
        node.spec.set("--tls-cert", &certificate.display().to_string());
        node.spec.set("--tls-key", &key.display().to_string());
        node.spec.set("--bot-listen", "127.0.0.1:0");
        node.spec.set("--bot-pool", "127.0.0.0/8");
    }
}

/// Where the plain listener beside the TLS one is.
///
/// # Panics
/// The node did not announce it.
#[must_use]
pub fn plain_listener(node: &Service) -> SocketAddr {
    let text = std::fs::read(node.data.join("run/proxy.json")).expect("announced");
    let value: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    value["bots"].as_str().and_then(|text| text.parse().ok()).expect("the bots' listener")
}

/// Connects, trusting `pairs` and offering `protocols`; the handshake is done.
///
/// # Errors
/// It fails.
///
/// # Panics
/// The certificates cannot be roots.
pub fn connect(address: SocketAddr, pairs: &[&Pair], protocols: &[&[u8]]) -> std::io::Result<Secure> {
    let mut roots = RootCertStore::empty();
    for pair in pairs {
        roots.add(pair.der()).expect("a root");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder.expect("versions").with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    let name = ServerName::try_from("localhost").expect("a name");
    let mut connection = ClientConnection::new(Arc::new(config), name).map_err(std::io::Error::other)?;
    let mut socket = TcpStream::connect_timeout(&address, IO_LIMIT)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(IO_LIMIT))?;
    socket.set_write_timeout(Some(IO_LIMIT))?;
    while connection.is_handshaking() {
        connection.complete_io(&mut socket)?;
    }
    Ok(StreamOwned::new(connection, socket))
}
