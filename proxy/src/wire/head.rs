//! The strict reading of an HTTP/1 request head: what two parsers could read
//! in two ways is refused here, before the one that serves it has a chance to
//! repair it.
//!
//! What is legal and plain passes; RFC 9110 and 9112 are the measure, and where
//! they let a recipient choose between repairing and refusing, it is refused.

/// Bytes of a whole head: the request line and the header fields.
pub const MAX_HEAD: usize = 48 << 10;
/// Longest method; the longest registered one has 17 letters.
const MAX_METHOD: usize = 32;
/// More digits than any length needs, and fewer than overflow 64 bits.
const MAX_LENGTH_DIGITS: usize = 18;

/// Why a head is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadFault {
    /// The header fields do not end within the limit.
    TooLarge,
    /// The request line does not.
    UriTooLong,
    /// It is not HTTP, or could be read in two ways; the words are for the
    /// client.
    Malformed(&'static str),
}

/// Looks for the end of a head in bytes as they arrive.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadEnd {
    /// What has been looked at.
    seen: usize,
    /// Where the line begins that is looked at.
    line: usize,
}

impl HeadEnd {
    /// The length of the head, once `bytes` (all that has arrived so far) hold
    /// all of it.
    ///
    /// # Errors
    /// A line does not end in CR LF, or no end comes within the limit.
    pub fn find(&mut self, bytes: &[u8]) -> Result<Option<usize>, HeadFault> {
        while let Some(at) = bytes.get(self.seen..).and_then(|rest| memchr::memchr(b'\n', rest)) {
            let end = self.seen + at;
            if end == self.line || bytes.get(end.wrapping_sub(1)) != Some(&b'\r') {
                return Err(HeadFault::Malformed("a line of the request's head ends without a carriage return"));
            }
            let empty = end == self.line + 1;
            self.seen = end + 1;
            let first = self.line == 0;
            self.line = self.seen;
            if empty && first {
                return Err(HeadFault::Malformed("the request begins with an empty line"));
            }
            if self.seen > MAX_HEAD {
                return Err(self.too_large());
            }
            if empty {
                return Ok(Some(self.seen));
            }
        }
        self.seen = bytes.len();
        if bytes.len() > MAX_HEAD { Err(self.too_large()) } else { Ok(None) }
    }

    const fn too_large(self) -> HeadFault {
        if self.line == 0 { HeadFault::UriTooLong } else { HeadFault::TooLarge }
    }
}

/// What of the header fields decides where the message ends.
#[derive(Debug, Default)]
struct Framing {
    hosts: usize,
    lengths: usize,
    codings: usize,
}

/// Checks a whole head, its final empty line included.
///
/// # Errors
/// It is not HTTP/1.0 or 1.1, or it is ambiguous.
pub fn check_head(head: &[u8]) -> Result<(), HeadFault> {
    let head = head.strip_suffix(b"\r\n\r\n").unwrap_or(head);
    let mut start = 0;
    let mut lines = memchr::memchr_iter(b'\n', head).chain([head.len()]).map(|end| {
        let line = head.get(start..end).unwrap_or_default();
        start = end + 1;
        line
    });
    let line = |raw: &'_ [u8]| -> usize { raw.len() - usize::from(raw.ends_with(b"\r")) };
    let first = lines.next().unwrap_or_default();
    let modern = request_line(first.get(..line(first)).unwrap_or_default())?;
    let mut framing = Framing::default();
    for raw in lines {
        field(raw.get(..line(raw)).unwrap_or_default(), modern, &mut framing)?;
    }
    if framing.lengths > 0 && framing.codings > 0 {
        return malformed("the request has both transfer-encoding and content-length");
    }
    if modern && framing.hosts == 0 {
        return malformed("the request has no host header");
    }
    Ok(())
}

const fn malformed<T>(why: &'static str) -> Result<T, HeadFault> {
    Err(HeadFault::Malformed(why))
}

/// Whether the version is 1.1; 1.0 is the only other one.
fn request_line(line: &[u8]) -> Result<bool, HeadFault> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (method, target, version) = (parts.next(), parts.next(), parts.next());
    let (Some(method), Some(target), Some(version), None) = (method, target, version, parts.next()) else {
        return malformed("the request line is not METHOD SP TARGET SP VERSION");
    };
    if method.len() > MAX_METHOD || !is_name(method) {
        return malformed("the request's method is not a token");
    }
    check_target(target)?;
    match version {
        b"HTTP/1.1" => Ok(true),
        b"HTTP/1.0" => Ok(false),
        _ => malformed("the request's version is neither HTTP/1.1 nor HTTP/1.0"),
    }
}

/// Checks a path with its query, of any version of HTTP.
///
/// # Errors
/// It is not in origin form, or has bytes that no address has.
pub fn check_target(target: &[u8]) -> Result<(), HeadFault> {
    if target.first() != Some(&b'/') {
        return malformed("the request's target is not a path that begins with a slash");
    }
    let query_at = memchr::memchr(b'?', target).unwrap_or(target.len());
    let mut at = 0;
    while let Some(&byte) = target.get(at) {
        let fits = if byte == b'%' {
            target.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
        } else {
            class(byte) & if at >= query_at { PATH | QUERY } else { PATH } != 0
        };
        if !fits {
            return malformed("the request's target has a byte that must be percent-encoded");
        }
        at += 1;
    }
    Ok(())
}

/// What a byte may be, by one look into a table.
static CLASSES: [u8; 256] = {
    let (mut classes, mut byte) = ([0; 256], 0_u8);
    loop {
        classes[byte as usize] = (if is_path(byte) { PATH } else { 0 })
            | (if is_query(byte) { QUERY } else { 0 })
            | (if is_token(byte) { TOKEN } else { 0 });
        if byte == u8::MAX {
            break classes;
        }
        byte += 1;
    }
};
const PATH: u8 = 1;
const QUERY: u8 = 2;
const TOKEN: u8 = 4;

fn class(byte: u8) -> u8 {
    CLASSES.get(usize::from(byte)).copied().unwrap_or(0)
}

/// `pchar` and the slash of RFC 3986, without the percent sign.
const fn is_path(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/' | b':' | b'@') || is_sub_delim(byte)
}

const fn is_sub_delim(byte: u8) -> bool {
    matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=')
}

/// What a query may have besides: the question mark, and what browsers' rules
/// (the URL standard) leave as it is, so that every SDK built on them gets by.
const fn is_query(byte: u8) -> bool {
    matches!(byte, b'?' | b'[' | b']' | b'{' | b'}' | b'|' | b'^' | b'`')
}

fn is_name(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().fold(TOKEN, |found, byte| found & class(*byte)) != 0
}

const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}

fn field(line: &[u8], modern: bool, framing: &mut Framing) -> Result<(), HeadFault> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return malformed("a header is folded over several lines");
    }
    let Some(colon) = memchr::memchr(b':', line) else { return malformed("a header line has no colon") };
    let (name, value) = (line.get(..colon).unwrap_or_default(), line.get(colon + 1..).unwrap_or_default());
    if !is_name(name) {
        return malformed("a header's name is not a token");
    }
    // To the end, whatever is found: many bytes can be looked at together then.
    if value.iter().fold(false, |found, byte| found | ((*byte < b' ') & (*byte != b'\t')) | (*byte == 0x7f)) {
        return malformed("a header's value has a control character");
    }
    match name.len() {
        4 if named(name, b"host") => {
            framing.hosts += 1;
            if framing.hosts > 1 || !is_host(value.trim_ascii()) {
                return malformed("the host header is not one host");
            }
        }
        14 if named(name, b"content-length") => {
            framing.lengths += 1;
            let digits = value.trim_ascii();
            let plain =
                !digits.is_empty() && digits.len() <= MAX_LENGTH_DIGITS && digits.iter().all(u8::is_ascii_digit);
            if framing.lengths > 1 || !plain || name.contains(&b'_') {
                return malformed("the content-length header is not one number");
            }
        }
        17 if named(name, b"transfer-encoding") => {
            framing.codings += 1;
            let chunked = value.trim_ascii().eq_ignore_ascii_case(b"chunked");
            if framing.codings > 1 || !chunked || !modern || name.contains(&b'_') {
                return malformed("the transfer-encoding header is not one \"chunked\" of HTTP/1.1");
            }
        }
        _ => {}
    }
    Ok(())
}

/// Underscores count as hyphens: some servers behind us read them so.
fn named(name: &[u8], wanted: &[u8]) -> bool {
    name.iter().zip(wanted).all(|(byte, want)| byte.eq_ignore_ascii_case(want) || (*byte == b'_' && *want == b'-'))
}

/// A comma may stand in a name, and is how two headers of one name are joined.
fn is_host(value: &[u8]) -> bool {
    !value.is_empty()
        && value.len() <= 260
        && value.iter().all(|byte| {
            byte.is_ascii_alphanumeric()
                || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'%' | b':' | b'[' | b']')
                || (is_sub_delim(*byte) && *byte != b',')
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(head: &str) -> Result<(), HeadFault> {
        let bytes = head.as_bytes();
        let end = HeadEnd::default().find(bytes)?;
        assert_eq!(end, Some(bytes.len()), "{head:?}");
        check_head(bytes)
    }

    #[test]
    fn plain_requests_pass() {
        for head in [
            "GET /v1/openai/models HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST /v1/x?include[]=usage&a={b}|c HTTP/1.1\r\nhost: [::1]:8080\r\nContent-Length: 17\r\n\r\n",
            "POST /a/models/m:generateContent?alt=sse&q=%C3%A4 HTTP/1.1\r\nHost:a.b:1\r\ntransfer-encoding: Chunked \r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "GET /x HTTP/1.1\r\nHost: a\r\nX-Utf: \u{e4}\r\nEmpty:\r\nx_y: 1\r\n\r\n",
        ] {
            assert_eq!(check(head), Ok(()), "{head:?}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let lines = [
            "GET /x HTTP/1.1\nHost: a\r\n\r\n",
            "\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET  /x HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /x\r\n\r\n",
            "GET /x HTTP/1.1 \r\nHost: a\r\n\r\n",
            "GET /x HTTP/2.0\r\nHost: a\r\n\r\n",
            "GET /x http/1.1\r\nHost: a\r\n\r\n",
            "GET http://a/x HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
            "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /x#y HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /x\\y HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /x[] HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /% HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\u{e4} HTTP/1.1\r\nHost: a\r\n\r\n",
            "G(T /x HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /x HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n",
            "GET /x HTTP/1.1\r\nHost: a\r\nA: b\rc: d\r\n\r\n",
            "GET /x HTTP/1.1\r\nHost: a\r\nA: \0\r\n\r\n",
            "GET /x HTTP/1.1\r\nHost: a\r\nA\r\n\r\n",
            "GET /x HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
            "GET /x HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET /x HTTP/1.1\r\n\r\n",
            "GET /x HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET /x HTTP/1.1\r\nHost: a@b\r\n\r\n",
            "GET /x HTTP/1.1\r\nHost: a, b\r\n\r\n",
        ];
        for head in lines {
            assert!(matches!(check(head), Err(HeadFault::Malformed(_))), "{head:?}");
        }
        for framing in [
            "Content-Length: +1",
            "Content-Length: 1, 1",
            "Content-Length: 0x1",
            "Content-Length: ",
            "Content-Length: 1 1",
            "Content-Length: 1234567890123456789",
            "Content-Length: 1\r\nContent-Length: 1",
            "Content_Length: 1",
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: chunked;a=b",
            "Transfer-Encoding: identity",
            "Transfer-Encoding:\u{b}chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer_Encoding: chunked",
            "Transfer-Encoding : chunked",
        ] {
            let head = format!("POST /x HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n");
            assert!(matches!(check(&head), Err(HeadFault::Malformed(_))), "{head:?}");
        }
        let old = "POST /x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(matches!(check(old), Err(HeadFault::Malformed(_))));
    }

    #[test]
    fn limits_are_kept() {
        let long = format!("GET /{} ", "a".repeat(MAX_HEAD));
        assert_eq!(HeadEnd::default().find(long.as_bytes()), Err(HeadFault::UriTooLong));
        let wide = format!("GET / HTTP/1.1\r\nA: {}", "a".repeat(MAX_HEAD));
        assert_eq!(HeadEnd::default().find(wide.as_bytes()), Err(HeadFault::TooLarge));
        let ended = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(MAX_HEAD));
        assert_eq!(HeadEnd::default().find(ended.as_bytes()), Err(HeadFault::TooLarge));
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_the_same_however_they_were_cut(
            bytes in proptest::collection::vec(prop_oneof![
                Just(b'\r'), Just(b'\n'), Just(b' '), Just(b':'), Just(b'/'), any::<u8>()
            ], 0..200),
            cut in 0..200_usize,
        ) {
            let whole = HeadEnd::default().find(&bytes);
            let mut pieces = HeadEnd::default();
            let mut found = pieces.find(bytes.get(..cut.min(bytes.len())).unwrap_or_default());
            if found == Ok(None) {
                found = pieces.find(&bytes);
            }
            prop_assert_eq!(whole, found);
            if let Ok(Some(end)) = whole {
                let _ = check_head(&bytes[..end]);
            }
        }

        #[test]
        fn what_passes_has_one_length_and_no_control(
            name in "[a-zA-Z_-]{1,20}", value in "[ -~\\r\\n\\x00]{0,20}", target in "/[ -~]{0,20}",
        ) {
            let head = format!("POST {target} HTTP/1.1\r\nHost: a\r\n{name}: {value}\r\n\r\n");
            let mut end = HeadEnd::default();
            if end.find(head.as_bytes()) == Ok(Some(head.len())) && check_head(head.as_bytes()).is_ok() {
                prop_assert!(!target.contains([' ', '#', '\\', '"', '<', '>']));
                prop_assert!(!value.contains('\0'));
            }
        }
    }
}
