//! A plain HTTP/1.1 client on one blocking socket.
//!
//! Invariant: bytes are reported as they came; nothing is retried, followed,
//! decompressed or normalised. Header names are lower-cased, order is kept.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// How long a connect, a read or a write may take.
pub const IO_LIMIT: Duration = Duration::from_secs(60);
/// Largest head that is accepted.
const HEAD_LIMIT: usize = 256 * 1024;

/// What is sent. `content-length` and `host` are added.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    /// Path and query as they go on the wire.
    pub target: String,
    /// In order.
    pub headers: Vec<(String, String)>,
    /// As it goes on the wire.
    pub body: Vec<u8>,
}

impl Request {
    /// Without headers and body.
    #[must_use]
    pub fn new(method: &str, target: &str) -> Self {
        Self { method: method.to_owned(), target: target.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    /// A POST of JSON.
    #[must_use]
    pub fn post(target: &str, body: &Value) -> Self {
        Self::new("POST", target).header("content-type", "application/json").body(body.to_string().into_bytes())
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds `authorization: Bearer`.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: Vec<u8>) -> Self {
        self.body = body;
        self
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self, host: SocketAddr) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nhost: {host}\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !self.body.is_empty() || matches!(self.method.as_str(), "POST" | "PUT" | "PATCH") {
            head.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// Status line and headers.
#[derive(Clone, Debug)]
pub struct Head {
    /// The status code.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The first value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status and headers.
    pub head: Head,
    /// What came, chunk framing removed.
    pub body: Vec<u8>,
    /// Why the body ended early, if it did.
    pub cut: Option<String>,
}

impl Response {
    /// The status code.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.head.status
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// It is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {} {}", self.status(), self.text()))
    }

    /// The `code` of an error, in any dialect; empty when there is none.
    #[must_use]
    pub fn code(&self) -> String {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let places = ["/error/code", "/error/details/0/reason", "/code", "/error/details/0/code"];
        places.iter().filter_map(|p| body.pointer(p).and_then(Value::as_str)).next().unwrap_or_default().to_owned()
    }
}

/// How the rest of a body is framed.
#[derive(Clone, Copy, Debug)]
enum Framing {
    Length(usize),
    Chunked,
    Close,
    Done,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    address: SocketAddr,
    buffer: Vec<u8>,
    framing: Framing,
}

fn other(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// The peer refuses or does not answer.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        Self::over(TcpStream::connect_timeout(&address, IO_LIMIT)?, address)
    }

    /// Uses a connected socket.
    ///
    /// # Errors
    /// It is none.
    pub fn over(stream: TcpStream, address: SocketAddr) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(IO_LIMIT))?;
        stream.set_write_timeout(Some(IO_LIMIT))?;
        Ok(Self { stream, address, buffer: Vec::new(), framing: Framing::Done })
    }

    /// The socket, for what this client does not do.
    #[must_use]
    pub const fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends raw bytes.
    ///
    /// # Errors
    /// The peer is gone.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a request.
    ///
    /// # Errors
    /// The peer is gone.
    pub fn send(&mut self, request: &Request) -> io::Result<()> {
        self.stream.write_all(&request.encode(self.address))
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut piece = [0_u8; 64 * 1024];
        let count = self.stream.read(&mut piece)?;
        self.buffer.extend_from_slice(&piece[..count]);
        Ok(count)
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 2);
                return Ok(line);
            }
            if self.buffer.len() > HEAD_LIMIT {
                return Err(other("a line without an end"));
            }
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Reads a head; `method` decides whether a body follows. Interim answers
    /// are skipped.
    ///
    /// # Errors
    /// The peer closed or did not speak HTTP.
    pub fn head(&mut self, method: &str) -> io::Result<Head> {
        loop {
            let status_line = self.line()?;
            let mut words = status_line.splitn(3, ' ');
            let status = match (words.next(), words.next().and_then(|s| s.parse::<u16>().ok())) {
                (Some("HTTP/1.1" | "HTTP/1.0"), Some(status)) => status,
                _ => return Err(other(format!("not a status line: {status_line:?}"))),
            };
            let mut headers = Vec::new();
            loop {
                let line = self.line()?;
                if line.is_empty() {
                    break;
                }
                let (name, value) = line.split_once(':').ok_or_else(|| other(format!("not a header: {line:?}")))?;
                headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            let head = Head { status, headers };
            self.framing = framing(method, &head)?;
            return Ok(head);
        }
    }

    /// The next piece of the body: one chunk, or what one read brought. `None`
    /// at its end.
    ///
    /// # Errors
    /// The body is cut or its framing broken.
    pub fn piece(&mut self) -> io::Result<Option<Vec<u8>>> {
        match self.framing {
            Framing::Done => Ok(None),
            Framing::Length(0) => {
                self.framing = Framing::Done;
                Ok(None)
            }
            Framing::Length(left) => {
                if self.buffer.is_empty() && self.fill()? == 0 {
                    return Err(other(format!("{left} bytes are missing")));
                }
                let take = left.min(self.buffer.len());
                self.framing = Framing::Length(left - take);
                Ok(Some(self.buffer.drain(..take).collect()))
            }
            Framing::Close => {
                if self.buffer.is_empty() && self.fill()? == 0 {
                    self.framing = Framing::Done;
                    return Ok(None);
                }
                Ok(Some(std::mem::take(&mut self.buffer)))
            }
            Framing::Chunked => self.chunk(),
        }
    }

    fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = self.line()?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(digits, 16).map_err(|_| other(format!("not a chunk size: {line:?}")))?;
        if size == 0 {
            while !self.line()?.is_empty() {}
            self.framing = Framing::Done;
            return Ok(None);
        }
        while self.buffer.len() < size + 2 {
            if self.fill()? == 0 {
                return Err(other("cut within a chunk"));
            }
        }
        let chunk = self.buffer.drain(..size).collect();
        if self.buffer.drain(..2).ne(*b"\r\n") {
            return Err(other("a chunk without its end"));
        }
        Ok(Some(chunk))
    }

    /// Reads a whole answer. A body that is cut is no error here.
    ///
    /// # Errors
    /// There is no head.
    pub fn response(&mut self, method: &str) -> io::Result<Response> {
        let head = self.head(method)?;
        let (mut body, mut cut) = (Vec::new(), None);
        loop {
            match self.piece() {
                Ok(Some(piece)) => body.extend_from_slice(&piece),
                Ok(None) => break,
                Err(error) => {
                    cut = Some(error.to_string());
                    break;
                }
            }
        }
        Ok(Response { head, body, cut })
    }

    /// Sends and reads.
    ///
    /// # Errors
    /// As [`Self::send`] and [`Self::response`].
    pub fn call(&mut self, request: &Request) -> io::Result<Response> {
        self.send(request)?;
        self.response(&request.method)
    }
}

fn framing(method: &str, head: &Head) -> io::Result<Framing> {
    if method == "HEAD" || matches!(head.status, 101 | 204 | 304) {
        return Ok(Framing::Done);
    }
    if head.header("transfer-encoding").is_some_and(|v| v.to_ascii_lowercase().contains("chunked")) {
        return Ok(Framing::Chunked);
    }
    match head.header("content-length") {
        Some(text) => Ok(Framing::Length(text.parse().map_err(|_| other(format!("content-length {text:?}")))?)),
        None => Ok(Framing::Close),
    }
}

/// One request on a connection of its own.
///
/// # Errors
/// As [`Connection::open`] and [`Connection::call`].
pub fn try_call(address: SocketAddr, request: &Request) -> io::Result<Response> {
    Connection::open(address)?.call(request)
}

/// One request on a connection of its own.
///
/// # Panics
/// There was no answer.
#[must_use]
pub fn call(address: SocketAddr, request: &Request) -> Response {
    try_call(address, request)
        .unwrap_or_else(|error| panic!("{} {} at {address}: {error}", request.method, request.target))
}
