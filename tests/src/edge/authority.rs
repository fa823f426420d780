//! A certificate authority of a test, and vendors that it vouches for.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::http::IO_LIMIT;

const ANSWER: &str = r#"{"id":"x","object":"chat.completion","choices":[]}"#;

/// Its certificate and key.
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A vendor over TLS that answers everything alike.
#[derive(Clone, Debug)]
pub struct SecureVendor {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Authority {
    /// A new one.
    ///
    /// # Panics
    /// There is no randomness.
    #[must_use]
    pub fn fresh() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("signed").pem();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// For whoever is to trust it; PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A vendor called `localhost`, whose certificate may be over.
    ///
    /// # Panics
    /// There is no port.
    #[must_use]
    pub fn server(&self, over: bool) -> SecureVendor {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        if over {
            (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        }
        let certificate = params.signed_by(&key, &self.issuer).expect("signed").der().clone();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = builder.expect("versions").with_no_client_auth().with_single_cert(vec![certificate], key);
        let config = Arc::new(config.expect("a certificate with its key"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let vendor = SecureVendor { address: listener.local_addr().expect("an address"), seen: Arc::default() };
        let serving = vendor.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (serving, config) = (serving.clone(), config.clone());
                std::thread::spawn(move || serving.serve(socket, config));
            }
        });
        vendor
    }
}

impl SecureVendor {
    /// What it was sent, in clear.
    ///
    /// # Panics
    /// A thread of it has.
    #[must_use]
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("lock").clone()
    }

    /// One request of a connection.
    fn serve(&self, socket: TcpStream, config: Arc<ServerConfig>) -> Option<()> {
        socket.set_read_timeout(Some(IO_LIMIT)).ok()?;
        let mut stream = StreamOwned::new(ServerConnection::new(config).ok()?, socket);
        let (mut bytes, mut piece) = (Vec::new(), [0_u8; 4096]);
        while !bytes.ends_with(b"}") {
            let count = stream.read(&mut piece).ok().filter(|count| *count > 0)?;
            bytes.extend_from_slice(&piece[..count]);
        }
        self.seen.lock().expect("lock").push(String::from_utf8_lossy(&bytes).into_owned());
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: ";
        stream.write_all(format!("{head}{}\r\n\r\n{ANSWER}", ANSWER.len()).as_bytes()).ok()?;
        stream.conn.send_close_notify();
        stream.flush().ok()
    }
}
