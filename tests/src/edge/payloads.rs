//! Requests whose framing two parsers could read in two ways, and their legal
//! neighbours. Each hides a second request where the other reading would find
//! one.

/// What the gateway must make of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It can be read in two ways, or is no HTTP: 400 and the end.
    Ambiguous,
    /// It is plain: served, or refused for what it asks.
    Legal,
    /// Not to the letter, and read in one way: no second request comes of it.
    Lenient,
}

/// One payload.
#[derive(Clone, Debug)]
pub struct Payload {
    /// What is wrong with it.
    pub name: String,
    /// As it goes on the wire.
    pub bytes: Vec<u8>,
    /// What must become of it.
    pub kind: Kind,
}

/// Builds payloads that carry one token and one probe each.
struct Writer<'a> {
    token: &'a str,
    list: Vec<Payload>,
}

const BODY: &str = r#"{"model":"m","messages":[]}"#;
const LINE: &str = "POST /v1/openai/chat/completions HTTP/1.1";

/// All payloads with the bot token `token`. The header `x-probe` of each is its
/// place in the list; that of a hidden request has `-hidden` behind it.
#[must_use]
pub fn all(token: &str) -> Vec<Payload> {
    let mut writer = Writer { token, list: Vec::new() };
    transfer_codings(&mut writer);
    lengths(&mut writer);
    request_lines(&mut writer);
    chunks(&mut writer);
    fields(&mut writer);
    legal(&mut writer);
    writer.list
}

impl Writer<'_> {
    /// What would be a request of its own if the one before ended early.
    fn hidden(&self) -> String {
        let probe = self.list.len();
        format!(
            "{LINE}\r\nHost: h\r\nAuthorization: Bearer {}\r\nx-probe: {probe}-hidden\r\nContent-Length: {}\r\n\r\n{BODY}",
            self.token,
            BODY.len()
        )
    }

    /// The usual lines of a head, without its end.
    fn usual(&self) -> String {
        let probe = self.list.len();
        format!("Host: h\r\nAuthorization: Bearer {}\r\nx-probe: {probe}\r\n", self.token)
    }

    fn push(&mut self, name: String, text: String, kind: Kind) {
        self.list.push(Payload { name, bytes: text.into_bytes(), kind });
    }

    /// With `lines` in its head and `body` after it.
    fn with(&mut self, name: &str, lines: &str, body: &str, kind: Kind) {
        let text = format!("{LINE}\r\n{}{lines}\r\n\r\n{body}", self.usual());
        self.push(name.to_owned(), text, kind);
    }
}

fn transfer_codings(w: &mut Writer<'_>) {
    let values = [
        "chunked",
        "Chunked",
        "CHUNKED",
        "\tchunked",
        "chunked\t",
        "xchunked",
        "chunkedx",
        "chunked, identity",
        "identity, chunked",
        "gzip, chunked",
        "chunked, chunked",
        "\"chunked\"",
        "'chunked'",
        "chunked;q=1",
        "chunked\u{b}",
        "\u{b}chunked",
        "\u{c}chunked",
        "chunk",
        "",
        ",chunked",
        "chunked,",
        "deflate",
        "x\tchunked",
    ];
    let names = [
        "Transfer-Encoding:",
        "transfer-encoding:",
        "Transfer_Encoding:",
        "Transfer-Encoding :",
        "Transfer-Encoding\t:",
        " Transfer-Encoding:",
        "X: x\r\n\tTransfer-Encoding:",
        "X: x\nTransfer-Encoding:",
        "X: x\rTransfer-Encoding:",
        "Transfer\0-Encoding:",
        "Transfer-Encoding",
        "TRANSFER-ENCODING:\r\n",
    ];
    for name in names {
        for value in values {
            let plain = matches!(name, "Transfer-Encoding:" | "transfer-encoding:")
                && value.trim_matches('\t').eq_ignore_ascii_case("chunked");
            let chunked = format!("{:x}\r\n{BODY}\r\n0\r\n\r\n", BODY.len());
            let kind = if plain { Kind::Legal } else { Kind::Ambiguous };
            w.with(&format!("coding {name:?} {value:?}"), &format!("{name} {value}"), &chunked, kind);
        }
        for value in ["chunked", "identity", "gzip, chunked", "x"] {
            let body = format!("0\r\n\r\n{}", w.hidden());
            for lines in [
                format!("Content-Length: {}\r\n{name} {value}", body.len()),
                format!("{name} {value}\r\nContent-Length: 5"),
            ] {
                w.with(&format!("length and coding {name:?} {value:?}"), &lines, &body, Kind::Ambiguous);
            }
        }
    }
}

fn lengths(w: &mut Writer<'_>) {
    let n = BODY.len();
    for value in [
        format!("+{n}"),
        format!("-{n}"),
        format!("0x{n:x}"),
        format!("{n},{n}"),
        format!("{n}, {n}"),
        format!("{n};"),
        format!("{n}.0"),
        format!("{n}e0"),
        format!("{n} 0"),
        format!("{n}\0"),
        format!("{n}\u{b}"),
        format!("{n}_"),
        format!("a{n}"),
        format!("{n}a"),
        String::new(),
        "\"27\"".to_owned(),
        format!("00000000000000000000{n}"),
        "18446744073709551643".to_owned(),
        "\u{662}\u{667}".to_owned(),
        format!("{n}\r"),
        format!("({n})"),
    ] {
        let body = format!("{BODY}{}", w.hidden());
        w.with(&format!("length {value:?}"), &format!("Content-Length: {value}"), &body, Kind::Ambiguous);
    }
    for lines in [
        format!("Content-Length: {n}\r\nContent-Length: {n}"),
        format!("Content-Length: {n}\r\nContent-Length: 0"),
        format!("Content-Length: 0\r\nContent-Length: {n}"),
        format!("Content-Length: {n}\r\ncontent-length: +{n}"),
        format!("Content-Length : {n}"),
        format!("Content-Length\t: {n}"),
        format!("Content_Length: {n}"),
        format!("X: y\r\n Content-Length: {n}"),
        format!("X: y\nContent-Length: {n}"),
        format!("X: y\rContent-Length: {n}"),
        format!("Content-Length:\r\n {n}"),
        format!("Content\0-Length: {n}"),
        format!("\u{b}Content-Length: {n}"),
        format!("Content-Length: {n}\r\nContent_Length: 0"),
    ] {
        let body = format!("{BODY}{}", w.hidden());
        w.with(&format!("lines {lines:?}"), &lines, &body, Kind::Ambiguous);
    }
}

fn request_lines(w: &mut Writer<'_>) {
    let path = "/v1/openai/chat/completions";
    for line in [
        format!("POST http://h{path} HTTP/1.1"),
        format!("POST https://other{path} HTTP/1.1"),
        format!("POST {path}  HTTP/1.1"),
        format!("POST  {path} HTTP/1.1"),
        format!(" POST {path} HTTP/1.1"),
        format!("POST\t{path} HTTP/1.1"),
        format!("POST {path}\tHTTP/1.1"),
        format!("POST {path} HTTP/1.1 "),
        format!("POST {path}"),
        format!("POST {path} HTTP/0.9"),
        format!("POST {path} HTTP/2.0"),
        format!("POST {path} HTTP/1.2"),
        format!("POST {path} http/1.1"),
        format!("POST {path} HTTP/1.10"),
        format!("POST {path} HTTP/01.1"),
        format!("POST {path} HTTP/1,1"),
        format!("POST {path} FTP/1.1"),
        format!("POST {path}#x HTTP/1.1"),
        format!("POST {path}\\x HTTP/1.1"),
        format!("POST {path}?a b HTTP/1.1"),
        format!("POST {path}\0 HTTP/1.1"),
        format!("POST {path}\u{7f} HTTP/1.1"),
        format!("POST {path}\u{e4} HTTP/1.1"),
        format!("POST {path}<x> HTTP/1.1"),
        format!("POST {path}\"x HTTP/1.1"),
        format!("POST {path}%zz HTTP/1.1"),
        format!("POST {path}% HTTP/1.1"),
        format!("POST {path}%2 HTTP/1.1"),
        "POST * HTTP/1.1".to_owned(),
        "CONNECT h:443 HTTP/1.1".to_owned(),
        "POST v1/openai HTTP/1.1".to_owned(),
        format!("P\u{f6}ST {path} HTTP/1.1"),
        format!("PO(ST {path} HTTP/1.1"),
        format!("{} {path} HTTP/1.1", "P".repeat(40)),
        format!("{path} HTTP/1.1"),
        format!("POST {path}\nHTTP/1.1"),
        format!("POST {path}\r HTTP/1.1"),
        "PRI * HTTP/2.0".to_owned(),
        format!("POST {path}?x=[y]{{\u{0}}} HTTP/1.1"),
        format!("POST {path}[x] HTTP/1.1"),
        format!("POST {path}|x HTTP/1.1"),
        format!("POST {path}^x HTTP/1.1"),
    ] {
        let text = format!("{line}\r\n{}Content-Length: {}\r\n\r\n{BODY}", w.usual(), BODY.len());
        w.push(format!("request line {line:?}"), text, Kind::Ambiguous);
    }
    let old = format!("POST {path} HTTP/1.0\r\n{}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", w.usual());
    w.push("coding of HTTP/1.0".to_owned(), old + &w.hidden(), Kind::Ambiguous);
    let bare = format!("POST {path} HTTP/1.1\n{}\n\n{}", w.usual().replace("\r\n", "\n"), w.hidden());
    w.push("bare line feeds throughout".to_owned(), bare, Kind::Ambiguous);
}

fn chunks(w: &mut Writer<'_>) {
    let (n, lines) = (BODY.len(), "Transfer-Encoding: chunked");
    for size in [
        format!("0x{n:x}"),
        format!("+{n:x}"),
        format!("-{n:x}"),
        format!("{n:x}_"),
        "g".to_owned(),
        String::new(),
        format!("{n:x}\n"),
        format!("{n:x}\r"),
        format!("FFFFFFFFFFFFFFF{n:x}"),
        format!("1000000000000000{n:x}"),
        format!(" {n:x}"),
        format!("{n:x},"),
        format!("{n:x}.0"),
        format!("\0{n:x}"),
        format!("{n:x}\0"),
        format!("\"{n:x}\""),
        format!("{n:x}h"),
        format!("\r\n{n:x}"),
        format!("{n:x};a=\nb"),
    ] {
        let body = format!("{size}\r\n{BODY}\r\n0\r\n\r\n{}", w.hidden());
        let lenient = size.is_empty() || size.starts_with("\r\n") || size.contains(';');
        let kind = if lenient { Kind::Lenient } else { Kind::Ambiguous };
        w.with(&format!("chunk size {size:?}"), lines, &body, kind);
    }
    for (name, rest) in [
        ("no end of a chunk", format!("{n:x}\r\n{BODY}0\r\n\r\n")),
        ("a line feed for an end", format!("{n:x}\r\n{BODY}\n0\r\n\r\n")),
        ("a carriage return for an end", format!("{n:x}\r\n{BODY}\r0\r\n\r\n")),
        ("a chunk that is longer than it says", format!("{n:x}\r\n{BODY}xx\r\n0\r\n\r\n")),
        ("another ending", format!("{n:x}\r\n{BODY}\r\n0\n\n")),
        ("a last chunk with a wrong end", format!("{n:x}\r\n{BODY}\r\n0\r\nx")),
        ("a trailer with a line feed", format!("{n:x}\r\n{BODY}\r\n0\r\na: b\n\r\n")),
    ] {
        let body = format!("{rest}{}", w.hidden());
        let kind = if name.starts_with("a last chunk") { Kind::Lenient } else { Kind::Ambiguous };
        w.with(name, lines, &body, kind);
    }
}

fn fields(w: &mut Writer<'_>) {
    let end = format!("Content-Length: {}", BODY.len());
    for line in [
        "X: a\r\n b",
        "X: a\r\n\tb",
        "X: a\0b",
        "X: a\rb",
        "X: a\nb",
        "X : a",
        ": a",
        "X",
        "X y: a",
        "X(: a",
        "X\u{e4}: a",
        "X: a\u{1}",
        "X: a\u{7f}",
        "Host: h",
        "Host: other",
        "hOsT: h",
        " X: a",
        "\0: a",
        "X:\u{8}",
        "X{}: a",
        "\"X\": a",
        "X,Y: a",
        "X;Y: a",
        "X/Y: a",
        "X=Y: a",
        "X@Y: a",
        "X[: a",
        "X\\: a",
    ] {
        w.with(&format!("field {line:?}"), &format!("{line}\r\n{end}"), BODY, Kind::Ambiguous);
    }
    for host in
        ["", "Host: ", "Host: a b", "Host: a@b", "Host: a/b", "Host: a,b", "Host: a\\b", "Host: a?b", "Host: <a>"]
    {
        let (token, probe) = (w.token, w.list.len());
        let head = format!("{host}\r\nAuthorization: Bearer {token}\r\nx-probe: {probe}\r\n{end}");
        let text = format!("{LINE}\r\n{}\r\n\r\n{BODY}", head.trim_start_matches("\r\n"));
        w.push(format!("host {host:?}"), text, Kind::Ambiguous);
    }
}

fn legal(w: &mut Writer<'_>) {
    let (n, end) = (BODY.len(), format!("Content-Length: {}", BODY.len()));
    for line in [
        "Connection: authorization",
        "Connection: x-api-key, host, content-length",
        "Connection: transfer-encoding",
        "Connection: keep-alive, upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
        "Upgrade: websocket",
        "Expect: 100-continue",
        "Expect: 200-ok",
        "TE: trailers, chunked",
        "Trailer: Content-Length",
        "Keep-Alive: x",
        "Proxy-Connection: close",
        "X-Content-Length: 0",
        "Content-Length-X: 0",
        "X-Transfer-Encoding: chunked",
        "X: \u{e4}",
        "X:",
        "x_y: z",
        "X-HTTP-Method-Override: DELETE",
        "X-Original-URL: /admin",
        "X-Forwarded-Host: other",
    ] {
        w.with(&format!("plain {line:?}"), &format!("{line}\r\n{end}"), BODY, Kind::Legal);
    }
    for chunks in [
        format!("{n:x};a=b\r\n{BODY}\r\n0\r\n\r\n"),
        format!("000{n:x}\r\n{BODY}\r\n0\r\n\r\n"),
        format!("{n:X}\r\n{BODY}\r\n00\r\n\r\n"),
        format!("{n:x}\r\n{BODY}\r\n0\r\nContent-Length: 5\r\n\r\n"),
        format!("{n:x}\r\n{BODY}\r\n0\r\nTransfer-Encoding: x\r\nX: y\r\n\r\n"),
        format!("1\r\n{{\r\n{:x}\r\n{}\r\n0;x\r\n\r\n", n - 1, BODY.get(1..).unwrap_or_default()),
    ] {
        w.with(&format!("chunks {chunks:?}"), "Transfer-Encoding: chunked", &chunks, Kind::Legal);
    }
    let spaced = format!("\r\n{LINE}\r\n{}{end}\r\n\r\n{BODY}", w.usual());
    w.push("an empty line before".to_owned(), spaced, Kind::Legal);
}
