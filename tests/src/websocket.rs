//! WebSockets on blocking sockets: a client, and a vendor that keeps a ledger.
//!
//! Both ends keep every byte that they sent and got after the handshake.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::http::{Head, IO_LIMIT};
use crate::mock::sha256_hex;

/// A text frame.
pub const TEXT: u8 = 1;
/// A binary frame.
pub const BINARY: u8 = 2;
/// A further frame of a message.
pub const MORE: u8 = 0;
/// A close frame.
pub const CLOSE: u8 = 8;
/// A ping.
pub const PING: u8 = 9;
/// A pong.
pub const PONG: u8 = 10;

/// A frame as it came, unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// See the constants.
    pub opcode: u8,
    /// The last of its message.
    pub last: bool,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The code of a close frame.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        (self.opcode == CLOSE).then(|| self.payload.first_chunk::<2>().map(|code| u16::from_be_bytes(*code))).flatten()
    }
}

/// One end of a WebSocket.
#[derive(Debug)]
pub struct Peer {
    stream: TcpStream,
    buffer: Vec<u8>,
    mask: Option<[u8; 4]>,
    /// Every byte that went out.
    pub sent: Vec<u8>,
    /// Every byte that came and was read.
    pub received: Vec<u8>,
}

impl Peer {
    /// The bytes of a frame of this end.
    #[must_use]
    pub fn encode(&self, opcode: u8, last: bool, payload: &[u8]) -> Vec<u8> {
        let masked = if self.mask.is_some() { 0x80 } else { 0 };
        let mut out = vec![if last { 0x80 } else { 0 } | opcode];
        match payload.len() {
            short @ 0..126 => out.push(masked | u8::try_from(short).expect("short")),
            medium @ 126..65_536 => {
                out.push(masked | 126);
                out.extend(u16::try_from(medium).expect("medium").to_be_bytes());
            }
            long => {
                out.push(masked | 127);
                out.extend((long as u64).to_be_bytes());
            }
        }
        out.extend(self.mask.into_iter().flatten());
        let mask = self.mask.unwrap_or_default();
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        out
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// The other end is gone.
    pub fn send(&mut self, opcode: u8, last: bool, payload: &[u8]) -> io::Result<()> {
        let bytes = self.encode(opcode, last, payload);
        self.send_raw(&bytes)
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// The other end is gone.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sent.extend_from_slice(bytes);
        self.stream.write_all(bytes)
    }

    /// Sends JSON as one text message.
    ///
    /// # Errors
    /// The other end is gone.
    pub fn say(&mut self, value: &Value) -> io::Result<()> {
        self.send(TEXT, true, value.to_string().as_bytes())
    }

    /// Sends a close frame.
    ///
    /// # Errors
    /// The other end is gone.
    pub fn close(&mut self, code: u16) -> io::Result<()> {
        self.send(CLOSE, true, &code.to_be_bytes())
    }

    /// Breaks the connection off.
    pub fn drop_connection(&self) {
        let _gone = self.stream.shutdown(Shutdown::Both);
    }

    fn need(&mut self, count: usize) -> io::Result<()> {
        let mut piece = [0; 16 * 1024];
        while self.buffer.len() < count {
            let read = self.stream.read(&mut piece)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.buffer.extend_from_slice(&piece[..read]);
        }
        Ok(())
    }

    fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        self.need(count)?;
        let bytes: Vec<u8> = self.buffer.drain(..count).collect();
        self.received.extend_from_slice(&bytes);
        Ok(bytes)
    }

    /// The next frame.
    ///
    /// # Errors
    /// The connection ended.
    pub fn frame(&mut self) -> io::Result<Frame> {
        let head = self.take(2)?;
        let length = match head[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes(self.take(2)?.try_into().expect("two"))),
            127 => u64::from_be_bytes(self.take(8)?.try_into().expect("eight")),
            short => u64::from(short),
        };
        let mask = if head[1] & 0x80 == 0 { vec![0; 4] } else { self.take(4)? };
        let mut payload = self.take(usize::try_from(length).expect("fits"))?;
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        Ok(Frame { opcode: head[0] & 0xf, last: head[0] & 0x80 != 0, payload })
    }

    /// The next message as JSON, pings passed over; `Err` holds the close frame.
    ///
    /// # Errors
    /// It is a close frame instead.
    ///
    /// # Panics
    /// The connection ended, or it is no JSON.
    pub fn json(&mut self) -> Result<Value, Frame> {
        let mut whole = Vec::new();
        loop {
            let frame = self.frame().unwrap_or_else(|error| panic!("no message: {error}"));
            match frame.opcode {
                CLOSE => return Err(frame),
                PING | PONG => {}
                _ => whole.extend(&frame.payload),
            }
            if frame.opcode < CLOSE && frame.last {
                return Ok(serde_json::from_slice(&whole).unwrap_or_else(|e| panic!("{e}: {whole:?}")));
            }
        }
    }

    /// Reads messages until one of this type.
    ///
    /// # Panics
    /// The session ends first.
    pub fn until(&mut self, kind: &str) -> Value {
        loop {
            let message = self.json().unwrap_or_else(|close| panic!("closed before {kind}: {close:?}"));
            if message["type"] == kind {
                return message;
            }
        }
    }
}

fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn parse_head(text: &str) -> Head {
    let status = text.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    let headers = text.lines().skip(1).filter_map(|line| line.split_once(':'));
    Head { status, headers: headers.map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned())).collect() }
}

fn peer(stream: TcpStream, mask: Option<[u8; 4]>) -> Peer {
    stream.set_read_timeout(Some(IO_LIMIT)).expect("socket");
    stream.set_write_timeout(Some(IO_LIMIT)).expect("socket");
    stream.set_nodelay(true).expect("socket");
    Peer { stream, buffer: Vec::new(), mask, sent: Vec::new(), received: Vec::new() }
}

/// Asks for a WebSocket at `target`; `headers` are added.
///
/// # Panics
/// There is no answer.
#[must_use]
pub fn connect(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> (Head, Peer) {
    let mut stream = TcpStream::connect_timeout(&address, IO_LIMIT).expect("connected");
    stream.set_read_timeout(Some(IO_LIMIT)).expect("socket");
    let mut head = format!(
        "GET {target} HTTP/1.1\r\nhost: {address}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    );
    headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    stream.write_all(format!("{head}\r\n").as_bytes()).expect("sent");
    let head = parse_head(&read_head(&mut stream).expect("an answer"));
    (head, peer(stream, Some([0x37, 0xfa, 0x21, 0x3d])))
}

/// What a vendor has seen of one session.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The request's head as it came.
    pub head: String,
    /// Every byte after it.
    pub received: Vec<u8>,
    /// Every byte that went back.
    pub sent: Vec<u8>,
    /// How it ended: a close code, or how the connection did.
    pub end: String,
}

/// A realtime vendor.
///
/// `response.create` makes a response of some deltas, which is billed and
/// entered in the ledger; `stall` begins one that never ends, `drop` breaks off,
/// `leave` closes with the code in it. Gemini's `clientContent` makes a turn. Any
/// other frame comes back as it was.
#[derive(Clone, Debug)]
pub struct Vendor {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    ledger: Vec<Value>,
    sessions: Vec<Seen>,
}

impl Vendor {
    /// Starts one.
    ///
    /// # Panics
    /// There is no port.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let vendor = Self { address: listener.local_addr().expect("bound"), state: Arc::default() };
        let serving = vendor.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                std::thread::spawn(move || serving.serve(stream));
            }
        });
        vendor
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it billed: `id`, `input`, `cached`, `output`.
    #[must_use]
    pub fn ledger(&self) -> Vec<Value> {
        self.state().ledger.clone()
    }

    /// Sessions that have ended.
    #[must_use]
    pub fn sessions(&self) -> Vec<Seen> {
        self.state().sessions.clone()
    }

    fn serve(&self, mut stream: TcpStream) {
        let Ok(head) = read_head(&mut stream) else { return };
        if !head.to_ascii_lowercase().contains("upgrade: websocket") {
            return;
        }
        let protocol = if head.contains("realtime,") || head.contains("realtime\r") {
            "sec-websocket-protocol: realtime\r\n"
        } else {
            ""
        };
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n{protocol}\
             sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
        let mut peer = peer(stream, None);
        let end = self.session(&mut peer).unwrap_or_else(|error| error.kind().to_string());
        let Peer { received, sent, .. } = peer;
        self.state().sessions.push(Seen { head, received, sent, end });
    }

    fn session(&self, peer: &mut Peer) -> io::Result<String> {
        let mut whole = Vec::new();
        loop {
            let frame = peer.frame()?;
            if let Some(code) = frame.code() {
                let _ = peer.close(code);
                return Ok(code.to_string());
            }
            if frame.opcode == PING {
                peer.send(PONG, true, &frame.payload)?;
                continue;
            }
            if frame.opcode < CLOSE {
                whole.extend(&frame.payload);
            }
            let asked: Value = serde_json::from_slice(&whole).unwrap_or_default();
            let kind = asked["type"].as_str().unwrap_or_default().to_owned();
            let known = asked.get("clientContent").is_some()
                || ["response.create", "stall", "drop", "leave"].contains(&kind.as_str());
            if frame.opcode < CLOSE && frame.last {
                whole.clear();
            }
            if !known {
                peer.send(frame.opcode, frame.last, &frame.payload)?;
                continue;
            }
            match kind.as_str() {
                "response.create" => self.respond(peer, &asked)?,
                "stall" => peer.say(&json!({"type": "response.created", "response": {"id": "resp_stall"}}))?,
                "drop" => {
                    peer.drop_connection();
                    return Ok("dropped".to_owned());
                }
                "leave" => peer.close(u16::try_from(asked["code"].as_u64().unwrap_or(1000)).expect("a code"))?,
                _ => self.turn(peer)?,
            }
        }
    }

    /// Counts that differ from response to response.
    fn bill(&self, id: &str) -> (u64, u64, u64) {
        let mut state = self.state();
        let number = state.ledger.len() as u64 + 1;
        let counts = (100 + number * 7, number * 3, 40 + number * 11);
        state.ledger.push(json!({ "id": id, "input": counts.0, "cached": counts.1, "output": counts.2 }));
        counts
    }

    fn respond(&self, peer: &mut Peer, asked: &Value) -> io::Result<()> {
        let id = format!("resp_{}", self.ledger().len() + 1);
        peer.say(&json!({"type": "response.created", "response": {"id": id, "status": "in_progress"}}))?;
        for number in 0..3 {
            let delta =
                json!({"type": "response.output_text.delta", "response_id": id, "delta": format!("word {number}")});
            peer.say(&delta)?;
        }
        // A message in pieces, with a ping between them.
        let (input, cached, output) = self.bill(&id);
        let done = json!({"type": "response.done", "response": {"id": id, "status": "completed", "usage": {
            "total_tokens": input + output, "input_tokens": input, "output_tokens": output,
            "input_token_details": {"text_tokens": input - 5, "audio_tokens": 5, "cached_tokens": cached},
            "output_token_details": {"text_tokens": 4, "audio_tokens": output - 4}}},
            "padding": "x".repeat(usize::try_from(asked["padding"].as_u64().unwrap_or(0)).expect("fits"))});
        let text = done.to_string();
        let (first, rest) = text.as_bytes().split_at(text.len() / 3);
        peer.send(TEXT, false, first)?;
        peer.send(PING, true, b"between")?;
        peer.send(MORE, true, rest)
    }

    fn turn(&self, peer: &mut Peer) -> io::Result<()> {
        let (input, cached, output) = self.bill("turn");
        let piece = json!({"serverContent": {"modelTurn": {"parts": [{"text": "hello"}]}}});
        peer.send(BINARY, true, piece.to_string().as_bytes())?;
        let end = json!({"serverContent": {"turnComplete": true}, "usageMetadata": {
            "promptTokenCount": input, "cachedContentTokenCount": cached, "responseTokenCount": output,
            "totalTokenCount": input + output}});
        peer.send(BINARY, true, end.to_string().as_bytes())
    }
}

/// Whether a text holds a secret, or its hash.
#[must_use]
pub fn leaks(text: &str, secret: &str) -> bool {
    text.contains(secret) || text.contains(&sha256_hex(secret))
}

/// How long a session may take to end once it has to.
pub const ENDS: Duration = Duration::from_secs(3);
