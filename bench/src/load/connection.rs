//! One HTTP/1.1 keep-alive connection, read with as little work as possible.

use std::io;
use std::time::Instant;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::target::Target;

/// Header lines a response may have.
const MAX_HEADERS: usize = 96;
/// Bytes a response head may have.
const MAX_HEAD: usize = 64 * 1024;

/// A finished exchange.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exchange {
    /// HTTP status.
    pub(crate) status: u16,
    /// When the first body byte (or the end of an empty body) was there.
    pub(crate) first_byte: Instant,
    /// Body bytes, without framing.
    pub(crate) bytes: u64,
    /// The connection can be used again.
    pub(crate) reusable: bool,
}

enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

struct ResponseHead {
    status: u16,
    framing: Framing,
    reusable: bool,
}

/// One connection.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Connection {
    /// Connects with TCP_NODELAY.
    pub(crate) async fn open(target: &Target) -> io::Result<Self> {
        let stream = TcpStream::connect(target.address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: BytesMut::with_capacity(16 * 1024) })
    }

    /// Sends one request and reads its response to the end, throwing the body
    /// away.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> io::Result<Exchange> {
        self.run(request, None).await
    }

    /// The same, keeping the body.
    pub(crate) async fn fetch(&mut self, request: &[u8]) -> io::Result<(Exchange, Vec<u8>)> {
        let mut body = Vec::new();
        let exchange = self.run(request, Some(&mut body)).await?;
        Ok((exchange, body))
    }

    async fn run(&mut self, request: &[u8], mut keep: Option<&mut Vec<u8>>) -> io::Result<Exchange> {
        self.stream.write_all(request).await?;
        let head = loop {
            let head = self.head().await?;
            // 1xx announces another head.
            if head.status >= 200 {
                break head;
            }
        };
        let mut first_byte = None;
        let bytes = match head.framing {
            Framing::Length(length) => self.length(length, &mut keep, &mut first_byte).await?,
            Framing::Chunked => self.chunks(&mut keep, &mut first_byte).await?,
            Framing::UntilClose => self.rest(&mut keep, &mut first_byte).await?,
        };
        let first_byte = first_byte.unwrap_or_else(Instant::now);
        Ok(Exchange { status: head.status, first_byte, bytes, reusable: head.reusable })
    }

    async fn head(&mut self) -> io::Result<ResponseHead> {
        let mut searched = 0;
        let end = loop {
            let fresh = self.buffer.get(searched..).unwrap_or_default();
            if let Some(at) = memchr::memmem::find(fresh, b"\r\n\r\n") {
                break searched + at + 4;
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "response head too long"));
            }
            searched = self.buffer.len().saturating_sub(3);
            self.more().await?;
        };
        let head = parse_head(self.buffer.get(..end).unwrap_or_default())?;
        self.buffer.advance(end);
        Ok(head)
    }

    async fn length(
        &mut self,
        mut left: usize,
        keep: &mut Option<&mut Vec<u8>>,
        first_byte: &mut Option<Instant>,
    ) -> io::Result<u64> {
        let total = left as u64;
        while left > 0 {
            if self.buffer.is_empty() {
                self.more().await?;
            }
            first_byte.get_or_insert_with(Instant::now);
            left -= self.take(left, keep);
        }
        Ok(total)
    }

    async fn chunks(&mut self, keep: &mut Option<&mut Vec<u8>>, first_byte: &mut Option<Instant>) -> io::Result<u64> {
        let mut total = 0;
        loop {
            let size = self.chunk_size().await?;
            if size == 0 {
                // No trailers are expected; an empty line ends the body.
                while self.line_length().await? > 0 {}
                return Ok(total);
            }
            first_byte.get_or_insert_with(Instant::now);
            total += size as u64;
            let mut left = size;
            while left > 0 {
                if self.buffer.is_empty() {
                    self.more().await?;
                }
                left -= self.take(left, keep);
            }
            if self.line_length().await? != 0 {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "chunk without its end"));
            }
        }
    }

    async fn rest(&mut self, keep: &mut Option<&mut Vec<u8>>, first_byte: &mut Option<Instant>) -> io::Result<u64> {
        let mut total = 0;
        loop {
            if !self.buffer.is_empty() {
                first_byte.get_or_insert_with(Instant::now);
                total += self.take(usize::MAX, keep) as u64;
            }
            match self.more().await {
                Ok(()) => {}
                Err(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => return Ok(total),
                Err(cause) => return Err(cause),
            }
        }
    }

    /// Takes up to `most` bytes out of the buffer.
    fn take(&mut self, most: usize, keep: &mut Option<&mut Vec<u8>>) -> usize {
        let count = most.min(self.buffer.len());
        if let Some(keep) = keep {
            keep.extend_from_slice(self.buffer.get(..count).unwrap_or_default());
        }
        self.buffer.advance(count);
        count
    }

    async fn chunk_size(&mut self) -> io::Result<usize> {
        let end = self.line_end().await?;
        let line = self.buffer.get(..end).unwrap_or_default();
        let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
        let size = std::str::from_utf8(digits).ok().and_then(|text| usize::from_str_radix(text.trim(), 16).ok());
        self.buffer.advance(end + 2);
        size.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "chunk size"))
    }

    async fn line_length(&mut self) -> io::Result<usize> {
        let end = self.line_end().await?;
        self.buffer.advance(end + 2);
        Ok(end)
    }

    async fn line_end(&mut self) -> io::Result<usize> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, b"\r\n") {
                return Ok(at);
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "line too long"));
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> io::Result<()> {
        self.buffer.reserve(8 * 1024);
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

fn parse_head(bytes: &[u8]) -> io::Result<ResponseHead> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut lines = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut lines);
    response.parse(bytes).map_err(|cause| invalid(&cause.to_string()))?;
    let status = response.code.ok_or_else(|| invalid("no status"))?;
    let mut framing = if matches!(status, 100..=199 | 204 | 304) { Framing::Length(0) } else { Framing::UntilClose };
    let mut reusable = response.version == Some(1);
    for header in response.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            let length = std::str::from_utf8(header.value).ok().and_then(|text| text.parse().ok());
            framing = Framing::Length(length.ok_or_else(|| invalid("content-length"))?);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            framing = Framing::Chunked;
        } else if header.name.eq_ignore_ascii_case("connection") {
            reusable = !header.value.eq_ignore_ascii_case(b"close");
        }
    }
    reusable &= !matches!(framing, Framing::UntilClose);
    Ok(ResponseHead { status, framing, reusable })
}
