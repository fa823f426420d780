//! A vendor that does on the wire what a request's `x-fault` says.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};

/// Longest any of its reads may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What it does, as text in `x-fault`; everything else gets the answer as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// After so many bytes of the answer, head included: a reset.
    Reset(usize),
    /// After so many bytes nothing, until the other side goes.
    Stall(usize),
    /// The body's last bytes, so many, one a second.
    Drip(usize),
    /// The announced length is shorter than what comes: a second answer follows.
    Short,
    /// The announced length is longer than what comes before the end.
    Long,
    /// In the place of the second chunk's size: something else.
    BadChunk,
    /// So many informational answers before the real one.
    Informational(usize),
    /// A switch of protocols that nobody asked for.
    Switch,
}

impl Fault {
    /// For `x-fault`.
    #[must_use]
    pub fn text(self) -> String {
        match self {
            Self::Reset(after) => format!("reset {after}"),
            Self::Stall(after) => format!("stall {after}"),
            Self::Drip(last) => format!("drip {last}"),
            Self::Short => "short 0".into(),
            Self::Long => "long 0".into(),
            Self::BadChunk => "bad-chunk 0".into(),
            Self::Informational(count) => format!("informational {count}"),
            Self::Switch => "switch 0".into(),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (name, number) = text.trim().split_once(' ')?;
        let number = number.parse().ok()?;
        Some(match name {
            "reset" => Self::Reset(number),
            "stall" => Self::Stall(number),
            "drip" => Self::Drip(number),
            "short" => Self::Short,
            "long" => Self::Long,
            "bad-chunk" => Self::BadChunk,
            "informational" => Self::Informational(number),
            "switch" => Self::Switch,
            _ => return None,
        })
    }
}

/// One that runs until the test ends.
#[derive(Clone, Debug)]
pub struct Faulty {
    /// Where it listens.
    pub address: SocketAddr,
    /// The body of every answer, by whether a stream was asked for.
    bodies: Arc<[Vec<u8>; 2]>,
    requests: Arc<AtomicUsize>,
}

impl Faulty {
    /// Starts one whose answers have about so many bytes.
    ///
    /// # Panics
    /// There is no port.
    #[must_use]
    pub fn start(size: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let faulty = Self { address, bodies: Arc::new([whole(size), stream(size)]), requests: Arc::default() };
        let serving = faulty.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                std::thread::spawn(move || serving.serve(stream));
            }
        });
        faulty
    }

    /// How many requests have come.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// What a body is when nothing goes wrong.
    #[must_use]
    pub fn body(&self, streams: bool) -> &[u8] {
        &self.bodies[usize::from(streams)]
    }

    fn serve(&self, mut stream: TcpStream) {
        let _ = stream.set_read_timeout(Some(PATIENCE));
        let _ = stream.set_nodelay(true);
        let mut bytes = Vec::new();
        while let Some(request) = next_request(&mut stream, &mut bytes) {
            self.requests.fetch_add(1, Ordering::SeqCst);
            let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
            let fault = text.lines().find_map(|line| line.strip_prefix("x-fault:")).and_then(Fault::parse);
            let streams = text.contains("\"stream\":true");
            if !answer(&mut stream, fault, self.body(streams), streams) {
                return;
            }
        }
    }
}

/// Whether the connection goes on.
fn answer(stream: &mut TcpStream, fault: Option<Fault>, body: &[u8], streams: bool) -> bool {
    match fault {
        None => stream.write_all(&framed(body, streams, body.len())).is_ok(),
        Some(Fault::Reset(after)) => {
            let whole = framed(body, streams, body.len());
            let _ = stream.write_all(&whole[..after.min(whole.len())]);
            let _ = setsockopt(stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 });
            false
        }
        Some(Fault::Stall(after)) => {
            let whole = framed(body, streams, body.len());
            let _ = stream.write_all(&whole[..after.min(whole.len())]);
            let _ = stream.read(&mut [0; 16]);
            false
        }
        Some(Fault::Drip(last)) => {
            let whole = framed(body, false, body.len());
            let (first, rest) = whole.split_at(whole.len() - last);
            let each = |stream: &mut TcpStream, byte: &u8| {
                std::thread::sleep(Duration::from_secs(1));
                stream.write_all(&[*byte])
            };
            stream.write_all(first).is_ok() && rest.iter().all(|byte| each(stream, byte).is_ok())
        }
        Some(Fault::Short) => {
            let mut bytes = framed(body, false, body.len());
            bytes.extend(framed(b"{\"id\":\"smuggled\"}", false, 17));
            stream.write_all(&bytes).is_ok()
        }
        Some(Fault::Long) => {
            let _ = stream.write_all(&framed(body, false, body.len() + 7));
            let _ = stream.shutdown(Shutdown::Both);
            false
        }
        Some(Fault::BadChunk) => {
            let whole = framed(body, true, 0);
            let ends = whole.len() - b"0\r\n\r\n".len();
            let _ = stream.write_all(&whole[..ends]);
            let _ = stream.write_all(b"xyz\r\nmore\r\n");
            false
        }
        Some(Fault::Informational(count)) => {
            let hint = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n".repeat(count);
            stream.write_all(&hint).is_ok() && stream.write_all(&framed(body, streams, body.len())).is_ok()
        }
        Some(Fault::Switch) => {
            let text = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: other\r\n\r\n";
            let _ = stream.write_all(text);
            let _ = stream.read(&mut [0; 16]);
            false
        }
    }
}

/// An answer, as one chunk per kilobyte or with its length.
fn framed(body: &[u8], chunks: bool, length: usize) -> Vec<u8> {
    if !chunks {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
        return [head.as_bytes(), body].concat();
    }
    let mut bytes =
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for piece in body.chunks(1024) {
        bytes.extend(format!("{:x}\r\n", piece.len()).into_bytes());
        bytes.extend_from_slice(piece);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

fn whole(size: usize) -> Vec<u8> {
    let text = "word ".repeat(size / 5);
    format!(
        "{{\"id\":\"f\",\"object\":\"chat.completion\",\"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\
         \"content\":\"{text}\"}},\"finish_reason\":\"stop\"}}],\"usage\":{{\"prompt_tokens\":9,\"completion_tokens\":5,\
         \"total_tokens\":14}}}}"
    )
    .into_bytes()
}

fn stream(size: usize) -> Vec<u8> {
    let event = |inner: &str| format!("data: {{\"id\":\"f\",\"object\":\"chat.completion.chunk\",{inner}}}\n\n");
    let delta = event("\"choices\":[{\"index\":0,\"delta\":{\"content\":\"word \"}}]");
    let usage = event("\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":5,\"total_tokens\":14}");
    format!("{}{usage}data: [DONE]\n\n", delta.repeat(size / delta.len())).into_bytes()
}

/// The next request, head and body.
fn next_request(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let mut piece = [0_u8; 16 * 1024];
    loop {
        if let Some(head) = bytes.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4) {
            let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
            let whole = head + length.and_then(|n| n.trim().parse::<usize>().ok()).unwrap_or(0);
            if bytes.len() >= whole {
                return Some(bytes.drain(..whole).collect());
            }
        }
        match stream.read(&mut piece) {
            Ok(count) if count > 0 => bytes.extend_from_slice(&piece[..count]),
            _ => return None,
        }
    }
}
