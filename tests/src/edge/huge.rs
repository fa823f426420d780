//! A vendor whose answers are huge, in one way or another.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

/// The shape of its answers.
#[derive(Clone, Debug)]
pub enum Shape {
    /// A stream with one event of so many bytes in a single line.
    Line(usize),
    /// A stream with one event of so many lines.
    Lines(usize),
    /// A body in an encoding that nobody asked for.
    Encoded(&'static str, Arc<Vec<u8>>),
}

/// One that runs until the test ends. Every answer is followed by its usage,
/// where it is a stream.
#[derive(Clone, Debug)]
pub struct Huge {
    /// Where it listens.
    pub address: SocketAddr,
    shape: Arc<Mutex<Shape>>,
    /// Length and hash of the last body.
    sent: Arc<Mutex<Option<Body>>>,
}

/// A body, as far as a test must know it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// In bytes.
    pub length: usize,
    /// SHA-256.
    pub hash: [u8; 32],
}

/// Takes a body piece by piece.
#[derive(Debug, Default)]
pub struct Measure {
    length: usize,
    hash: Sha256,
}

impl Measure {
    /// Takes a piece.
    pub fn push(&mut self, piece: &[u8]) {
        self.length += piece.len();
        self.hash.update(piece);
    }

    /// What it came to.
    #[must_use]
    pub fn end(self) -> Body {
        Body { length: self.length, hash: self.hash.finalize().into() }
    }
}

const PIECE: usize = 64 << 10;
const USAGE: &str = "data: {\"id\":\"h\",\"object\":\"chat.completion.chunk\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\
                     \"completion_tokens\":5,\"total_tokens\":14}}\n\ndata: [DONE]\n\n";

impl Huge {
    /// Starts one.
    ///
    /// # Panics
    /// There is no port.
    #[must_use]
    pub fn start(shape: Shape) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let huge = Self { address, shape: Arc::new(Mutex::new(shape)), sent: Arc::default() };
        let serving = huge.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                std::thread::spawn(move || serving.serve(stream));
            }
        });
        huge
    }

    /// The shape of the answers to come.
    ///
    /// # Panics
    /// A thread of it has.
    pub fn shape(&self, shape: Shape) {
        *self.shape.lock().expect("lock") = shape;
    }

    /// The last body that was sent to its end.
    ///
    /// # Panics
    /// A thread of it has, or there was none.
    #[must_use]
    pub fn sent(&self) -> Body {
        self.sent.lock().expect("lock").take().expect("a whole body was sent")
    }

    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
        let (mut bytes, mut piece) = (Vec::new(), [0_u8; 4096]);
        while !bytes.ends_with(b"}") {
            let count = stream.read(&mut piece).ok().filter(|count| *count > 0)?;
            bytes.extend_from_slice(&piece[..count]);
        }
        let shape = self.shape.lock().expect("lock").clone();
        let kind = match &shape {
            Shape::Encoded(name, _) => format!("application/json\r\ncontent-encoding: {name}"),
            Shape::Line(_) | Shape::Lines(_) => "text/event-stream".to_owned(),
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\ncontent-type: {kind}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).ok()?;
        let mut measure = Measure::default();
        let mut write = |text: &[u8]| {
            measure.push(text);
            stream.write_all(format!("{:x}\r\n", text.len()).as_bytes()).ok()?;
            stream.write_all(text).ok()?;
            stream.write_all(b"\r\n").ok()
        };
        match &shape {
            Shape::Line(length) => {
                write(b"data: {\"id\":\"h\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"")?;
                let text = [b'x'; PIECE];
                for at in (0..*length).step_by(PIECE) {
                    write(&text[..PIECE.min(length - at)])?;
                }
                write(b"\"}}]}\n\n")?;
            }
            Shape::Lines(count) => {
                let lines = b"data: [1,2]\n".repeat(1000);
                for _ in 0..count / 1000 {
                    write(&lines)?;
                }
                write(b"\n")?;
            }
            Shape::Encoded(_, body) => {
                for piece in body.chunks(PIECE) {
                    write(piece)?;
                }
            }
        }
        if !matches!(shape, Shape::Encoded(..)) {
            write(USAGE.as_bytes())?;
        }
        *self.sent.lock().expect("lock") = Some(measure.end());
        stream.write_all(b"0\r\n\r\n").ok()
    }
}
