//! HTTP/2 by hand: single frames over TLS, legal or not.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;

use super::tls::{Pair, Secure, connect};

/// Frame types.
pub mod kind {
    #![allow(missing_docs)]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// `END_STREAM`, and `ACK` of SETTINGS and PING.
pub const END_STREAM: u8 = 1;
/// `END_HEADERS`.
pub const END_HEADERS: u8 = 4;

/// A frame as it came.
#[derive(Clone, Debug)]
pub struct Frame {
    /// See [`kind`].
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// A connection after the preface.
#[derive(Debug)]
pub struct Wire {
    tls: Secure,
    /// Read and not yet taken as frames.
    buffer: Vec<u8>,
}

/// A frame's bytes.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A header list, every field literal and in full.
#[must_use]
pub fn fields(list: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in list {
        // Without indexing, with a new name.
        block.push(0);
        for text in [name, value] {
            length(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

fn length(block: &mut Vec<u8>, mut count: usize) {
    if count < 127 {
        block.push(u8::try_from(count).unwrap_or(0));
        return;
    }
    block.push(127);
    count -= 127;
    while count >= 128 {
        block.push(u8::try_from(count % 128).unwrap_or(0) | 128);
        count /= 128;
    }
    block.push(u8::try_from(count).unwrap_or(0));
}

/// The head of a chat completion.
#[must_use]
pub fn chat_head(token: &str) -> Vec<u8> {
    fields(&[
        (":method", "POST"),
        (":scheme", "https"),
        (":path", "/v1/openai/chat/completions"),
        (":authority", "localhost"),
        ("authorization", &format!("Bearer {token}")),
        ("content-type", "application/json"),
    ])
}

impl Wire {
    /// Connects and sends the preface with empty settings.
    ///
    /// # Errors
    /// No handshake, or another protocol was chosen.
    pub fn open(address: SocketAddr, pair: &Pair) -> io::Result<Self> {
        let mut tls = connect(address, &[pair], &[b"h2"])?;
        if tls.conn.alpn_protocol() != Some(b"h2") {
            return Err(io::Error::other("HTTP/2 was not chosen"));
        }
        tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
        tls.write_all(&frame(kind::SETTINGS, 0, 0, &[]))?;
        tls.flush()?;
        Ok(Self { tls, buffer: Vec::new() })
    }

    /// Sends bytes, whatever they are.
    ///
    /// # Errors
    /// The peer is gone.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tls.write_all(bytes)?;
        self.tls.flush()
    }

    /// How long a read may wait.
    ///
    /// # Errors
    /// The system refuses it.
    pub fn patience(&self, limit: std::time::Duration) -> io::Result<()> {
        self.tls.sock.set_read_timeout(Some(limit))
    }

    /// The next frame; acknowledges settings and pings, as any client does.
    ///
    /// # Errors
    /// The connection ended or stays silent.
    pub fn read_frame(&mut self) -> io::Result<Frame> {
        loop {
            if let Some(found) = self.buffered() {
                return Ok(found);
            }
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut piece = [0_u8; 16 * 1024];
        let count = self.tls.read(&mut piece)?;
        self.buffer.extend_from_slice(&piece[..count]);
        Ok(count)
    }

    fn buffered(&mut self) -> Option<Frame> {
        let head = self.buffer.get(..9)?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let (kind, flags) = (head[3], head[4]);
        let payload = self.buffer.get(9..9 + length)?.to_vec();
        self.buffer.drain(..9 + length);
        if flags & END_STREAM == 0 && matches!(kind, kind::SETTINGS | kind::PING) {
            let back = if kind == kind::PING { payload.as_slice() } else { &[] };
            let _ = self.send(&frame(kind, END_STREAM, 0, back));
        }
        Some(Frame { kind, flags, stream, payload })
    }

    /// Takes what has come so far, without waiting.
    ///
    /// # Panics
    /// The socket cannot be made to wait again.
    #[must_use]
    pub fn arrived(&mut self) -> Vec<Frame> {
        self.tls.sock.set_nonblocking(true).expect("non-blocking");
        while self.fill().is_ok_and(|count| count > 0) {}
        self.tls.sock.set_nonblocking(false).expect("blocking");
        std::iter::from_fn(|| self.buffered()).collect()
    }

    /// Reads to the end of the connection.
    #[must_use]
    pub fn rest(&mut self) -> Vec<Frame> {
        std::iter::from_fn(|| self.read_frame().ok()).collect()
    }
}
