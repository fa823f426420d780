//! Reading one request: head, `Expect: 100-continue`, body in either framing.

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest request head taken.
const MAX_HEAD: usize = 64 * 1024;
/// Most header lines taken.
pub(super) const MAX_HEADERS: usize = 128;
/// Longest request body taken.
const MAX_BODY: usize = 256 * 1024 * 1024;
/// Longest chunk-size line taken.
const MAX_CHUNK_LINE: usize = 4096;

/// A request head, borrowed from the bytes it was parsed from.
pub(crate) struct Head<'a> {
    /// Method as sent.
    pub(crate) method: &'a str,
    /// Request target as sent.
    pub(crate) target: &'a str,
    /// Header lines in order, names as sent.
    pub(crate) headers: &'a [httparse::Header<'a>],
}

impl<'a> Head<'a> {
    /// The first value of a header, by its lower-case name.
    pub(crate) fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    }
}

/// A request read whole.
pub(crate) struct Request<'a> {
    /// Its head.
    pub(crate) head: Head<'a>,
    /// Its body, decoded from the framing.
    pub(crate) body: Bytes,
}

/// Why no request came out of a connection.
pub(super) enum ReadEnd {
    /// The peer closed between requests.
    Closed,
    /// The peer closed or the socket failed inside a request.
    Broken,
    /// The request is not one: answer with this status and close.
    Refused(u16),
}

/// Waits for a whole head and takes it out of the buffer.
pub(super) async fn read_head(stream: &mut TcpStream, buffer: &mut BytesMut) -> Result<Bytes, ReadEnd> {
    let mut searched = 0;
    loop {
        // Empty lines before a request are allowed and ignored.
        while searched == 0 && buffer.starts_with(b"\r\n") {
            buffer.advance(2);
        }
        let from = searched.min(buffer.len());
        if let Some(at) = buffer.get(from..).and_then(|rest| memchr::memmem::find(rest, b"\r\n\r\n")) {
            return Ok(buffer.split_to(from + at + 4).freeze());
        }
        if buffer.len() > MAX_HEAD {
            return Err(ReadEnd::Refused(431));
        }
        searched = buffer.len().saturating_sub(3);
        let empty = buffer.is_empty();
        match fill(stream, buffer).await {
            Ok(()) => {}
            Err(ReadEnd::Broken) if empty => return Err(ReadEnd::Closed),
            Err(end) => return Err(end),
        }
    }
}

/// How a request's body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// This many bytes.
    Length(usize),
    /// `transfer-encoding: chunked`.
    Chunked,
}

/// Decides the framing; both at once, or a length that is no number, is 400.
pub(super) fn framing(head: &Head<'_>) -> Result<Framing, u16> {
    let mut length: Option<usize> = None;
    let mut chunked = false;
    for header in head.headers {
        if header.name.eq_ignore_ascii_case("content-length") {
            let value = std::str::from_utf8(header.value).map_err(|_| 400_u16)?;
            if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(400);
            }
            let value = value.parse().map_err(|_| 413_u16)?;
            if length.is_some_and(|earlier| earlier != value) {
                return Err(400);
            }
            length = Some(value);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            if chunked || !header.value.eq_ignore_ascii_case(b"chunked") {
                return Err(400);
            }
            chunked = true;
        }
    }
    match (chunked, length) {
        (true, Some(_)) => Err(400),
        (true, None) => Ok(Framing::Chunked),
        (false, Some(length)) if length > MAX_BODY => Err(413),
        (false, length) => Ok(Framing::Length(length.unwrap_or(0))),
    }
}

/// Reads the body, sending `100 Continue` first when the client waits for it.
pub(super) async fn read_body(
    stream: &mut TcpStream,
    buffer: &mut BytesMut,
    framing: Framing,
    expects_continue: bool,
) -> Result<Bytes, ReadEnd> {
    let wanted = match framing {
        Framing::Length(0) => return Ok(Bytes::new()),
        Framing::Length(wanted) => Some(wanted),
        Framing::Chunked => None,
    };
    if expects_continue && buffer.is_empty() {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.map_err(|_| ReadEnd::Broken)?;
    }
    let Some(wanted) = wanted else { return read_chunked(stream, buffer).await };
    if buffer.len() < wanted {
        buffer.reserve(wanted - buffer.len());
    }
    while buffer.len() < wanted {
        fill(stream, buffer).await?;
    }
    Ok(buffer.split_to(wanted).freeze())
}

async fn read_chunked(stream: &mut TcpStream, buffer: &mut BytesMut) -> Result<Bytes, ReadEnd> {
    let mut body = BytesMut::new();
    loop {
        let line = read_line(stream, buffer).await?;
        let size = chunk_size(&line).ok_or(ReadEnd::Refused(400))?;
        if size == 0 {
            while !read_line(stream, buffer).await?.is_empty() {}
            return Ok(body.freeze());
        }
        if body.len() + size > MAX_BODY {
            return Err(ReadEnd::Refused(413));
        }
        while buffer.len() < size + 2 {
            fill(stream, buffer).await?;
        }
        body.extend_from_slice(&buffer.split_to(size));
        if !buffer.starts_with(b"\r\n") {
            return Err(ReadEnd::Refused(400));
        }
        buffer.advance(2);
    }
}

/// One line without its end.
async fn read_line(stream: &mut TcpStream, buffer: &mut BytesMut) -> Result<Bytes, ReadEnd> {
    loop {
        if let Some(at) = memchr::memmem::find(buffer, b"\r\n") {
            let line = buffer.split_to(at).freeze();
            buffer.advance(2);
            return Ok(line);
        }
        if buffer.len() > MAX_CHUNK_LINE {
            return Err(ReadEnd::Refused(400));
        }
        fill(stream, buffer).await?;
    }
}

/// The size in a chunk line; extensions after `;` are ignored.
fn chunk_size(line: &[u8]) -> Option<usize> {
    let line = std::str::from_utf8(line).ok()?;
    let digits = line.split(';').next()?.trim_end();
    let hexadecimal = !digits.is_empty() && digits.len() <= 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    hexadecimal.then(|| usize::from_str_radix(digits, 16).ok()).flatten()
}

async fn fill(stream: &mut TcpStream, buffer: &mut BytesMut) -> Result<(), ReadEnd> {
    if buffer.capacity() - buffer.len() < 2048 {
        buffer.reserve(16 * 1024);
    }
    match stream.read_buf(buffer).await {
        Ok(0) | Err(_) => Err(ReadEnd::Broken),
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing_of(headers: &[(&str, &str)]) -> Result<Framing, u16> {
        let headers: Vec<httparse::Header<'_>> =
            headers.iter().map(|(name, value)| httparse::Header { name, value: value.as_bytes() }).collect();
        framing(&Head { method: "POST", target: "/", headers: &headers })
    }

    #[test]
    fn framing_is_strict() {
        assert_eq!(framing_of(&[]), Ok(Framing::Length(0)));
        assert_eq!(framing_of(&[("Content-Length", "12")]), Ok(Framing::Length(12)));
        assert_eq!(framing_of(&[("Transfer-Encoding", "Chunked")]), Ok(Framing::Chunked));
        for bad in [
            vec![("content-length", "1"), ("transfer-encoding", "chunked")],
            vec![("content-length", "+1")],
            vec![("content-length", "")],
            vec![("content-length", "1"), ("content-length", "2")],
            vec![("transfer-encoding", "gzip, chunked")],
        ] {
            assert_eq!(framing_of(&bad), Err(400), "{bad:?}");
        }
    }

    #[test]
    fn chunk_sizes() {
        assert_eq!(chunk_size(b"1a"), Some(26));
        assert_eq!(chunk_size(b"0;ext=1"), Some(0));
        for bad in [&b""[..], b"0x1", b"-1", b"1_0", b" 1", b"fffffffff"] {
            assert_eq!(chunk_size(bad), None, "{bad:?}");
        }
    }
}
