//! One connection: requests in, answers out, until somebody closes.

use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::request::{Head, MAX_HEADERS, ReadEnd, Request, framing, read_body, read_head};
use crate::admin;
use crate::answer::Bill;
use crate::config::MockConfig;
use crate::credentials::{self, Target};
use crate::dialect::{self, Dialect, Hints, Spoken};
use crate::knobs::{KnobError, Knobs};
use crate::ledger::{Credential, Ended, Entry, Outcome, now_us, sha256_hex};
use crate::replay::Replays;
use crate::rules::Rules;
use crate::send::{Sent, Terms, Wire, send};
use crate::stored;

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) config: MockConfig,
    pub(crate) replays: Option<Replays>,
    pub(crate) rules: Rules,
}

impl Shared {
    pub(crate) fn new(config: MockConfig) -> Self {
        let replays = config.recordings.clone().map(Replays::new);
        Self { config, replays, rules: Rules::default() }
    }
}

/// Whether the connection goes on.
#[derive(PartialEq, Eq)]
enum Next {
    Serve,
    Close,
}

/// Serves until the peer or a fault closes the connection.
pub(crate) async fn serve_connection(mut stream: TcpStream, shared: Arc<Shared>) {
    let _set = stream.set_nodelay(true);
    let mut buffer = BytesMut::with_capacity(16 * 1024);
    let mut out = Vec::with_capacity(4096);
    loop {
        match serve_one(&mut stream, &mut buffer, &mut out, &shared).await {
            Ok(Next::Serve) => {}
            Ok(Next::Close) | Err(ReadEnd::Closed | ReadEnd::Broken) => return,
            Err(ReadEnd::Refused(status)) => {
                let text = format!("HTTP/1.1 {status} Refused\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
                let _written = stream.write_all(text.as_bytes()).await;
                return;
            }
        }
    }
}

async fn serve_one(
    stream: &mut TcpStream,
    buffer: &mut BytesMut,
    out: &mut Vec<u8>,
    shared: &Shared,
) -> Result<Next, ReadEnd> {
    let head_bytes = read_head(stream, buffer).await?;
    let mut lines = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut lines);
    match parsed.parse(&head_bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Err(ReadEnd::Refused(431)),
        Ok(httparse::Status::Partial) | Err(_) => return Err(ReadEnd::Refused(400)),
    }
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(ReadEnd::Refused(400));
    };
    let head = Head { method, target, headers: parsed.headers };
    let framing = framing(&head).map_err(ReadEnd::Refused)?;
    let expects = head.header("expect").is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"));
    let body = read_body(stream, buffer, framing, expects).await?;
    let terms = Terms { keep_alive: keep_alive(&head, version), old: version == 0, head_only: method == "HEAD" };
    let request = Request { head, body };
    let mut wire = Wire { stream, ahead: buffer, out };
    let goes_on = exchange(&mut wire, shared, &request, terms).await;
    Ok(if goes_on && terms.keep_alive { Next::Serve } else { Next::Close })
}

fn keep_alive(head: &Head<'_>, version: u8) -> bool {
    let connection = head.header("connection").unwrap_or_default();
    if version == 0 {
        connection.eq_ignore_ascii_case(b"keep-alive")
    } else {
        !connection.eq_ignore_ascii_case(b"close")
    }
}

/// Answers one request and records it; false when the connection must close.
async fn exchange(wire: &mut Wire<'_>, shared: &Shared, request: &Request<'_>, terms: Terms) -> bool {
    let target = Target::parse(request.head.target);
    if let Some(name) = target.path.strip_prefix("/__mock/") {
        let answer = admin::answer(shared, request, name);
        let sent = send(wire, answer, &Knobs::default(), terms).await;
        return sent.ended == Ended::Complete;
    }
    let start_us = if shared.config.ledger.keeps_entries() { now_us() } else { 0 };
    let hashed = shared.config.ledger.keeps_entries() || shared.rules.any();
    let credentials = if hashed { credentials::find(&request.head, &target) } else { Vec::new() };
    let mut knobs = shared.config.knobs.clone();
    let (operation, spoken) = match turn_knobs(shared, request, &target, &credentials, &mut knobs) {
        Ok(path) => answer(shared, request, &target, path, &knobs),
        Err(cause) => ("bad-knob", plain_error(400, &cause.to_string())),
    };
    let Spoken { answer, model, stream } = spoken;
    let bill = answer.bill;
    let status = answer.status;
    let promised = answer.cuts.last().map_or(0, |cut| cut.tokens);
    let ticket = shared.config.ledger.begin(|| Entry {
        start_us,
        dialect: operation,
        model,
        stream,
        status,
        promised_input: bill.input,
        promised_output: promised,
        ..entry(request, &target, credentials)
    });
    let sent = send(wire, answer, &knobs, terms).await;
    ticket.finish(&outcome(&sent, status, bill));
    sent.ended == Ended::Complete && !(terms.old && stream)
}

/// A vendor bills what it has generated, once it has begun to answer.
fn outcome(sent: &Sent, status: u16, bill: Bill) -> Outcome {
    let complete = sent.ended == Ended::Complete;
    let output = if complete { bill.output } else { sent.tokens.min(bill.output) };
    Outcome {
        status: if sent.begun { status } else { 0 },
        sent_output: sent.tokens,
        billed_input: if sent.begun { bill.input } else { 0 },
        billed_output: output,
        bytes_sent: sent.bytes,
        ended: sent.ended,
    }
}

/// Collects the knobs of a request, weakest first: path, rules, query,
/// headers. Returns the path without its knob segment.
fn turn_knobs<'a>(
    shared: &Shared,
    request: &Request<'_>,
    target: &Target<'a>,
    credentials: &[Credential],
    knobs: &mut Knobs,
) -> Result<&'a str, KnobError> {
    let mut path = target.path;
    if let Some(rest) = path.strip_prefix("/knobs/") {
        let (text, after) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        knobs.set_all(&credentials::decode(text))?;
        path = after;
    }
    if shared.rules.any() {
        shared.rules.apply(credentials.iter().map(|credential| credential.sha256.as_str()), knobs)?;
    }
    for (name, value) in target.parameters() {
        if let Some(knob) = name.strip_prefix("mock_") {
            knobs.set(knob, &credentials::decode(value))?;
        }
    }
    for header in request.head.headers {
        if header.name.get(..7).is_some_and(|prefix| prefix.eq_ignore_ascii_case("x-mock-")) {
            let knob = header.name.get(7..).unwrap_or_default();
            knobs.set(knob, &String::from_utf8_lossy(header.value))?;
        }
    }
    Ok(path)
}

/// The answer with its extra headers, and what the ledger calls it.
fn answer(
    shared: &Shared,
    request: &Request<'_>,
    target: &Target<'_>,
    path: &str,
    knobs: &Knobs,
) -> (&'static str, Spoken) {
    let (operation, mut spoken) = if let Some(case) = path.strip_prefix("/replay/") {
        ("replay", replay(shared, case, knobs))
    } else {
        speak(request, target, path, knobs)
    };
    spoken.answer.headers.extend(knobs.headers.iter().cloned());
    (operation, spoken)
}

fn speak(request: &Request<'_>, target: &Target<'_>, path: &str, knobs: &Knobs) -> (&'static str, Spoken) {
    let head = &request.head;
    let hints = Hints {
        anthropic: head.header("anthropic-version").is_some(),
        google: head.header("x-goog-api-key").is_some() || target.parameters().any(|(name, _)| name == "key"),
    };
    let Some(route) = dialect::route(path, hints) else {
        let found = stored::answer(head.method, path, &credentials::first(head, target), &request.body);
        if let Some(answer) = found {
            let answer = knobs.status.map_or(answer, |status| dialect::failure(Dialect::OpenAi, status, "as asked"));
            return ("stored", Spoken { answer, model: String::new(), stream: false });
        }
        return ("unknown", plain_error(404, &format!("the mock vendor has no route {path}")));
    };
    let credential =
        if matches!(knobs.status, Some(401 | 403)) { credentials::first(head, target) } else { String::new() };
    let sse = target.parameters().any(|(name, value)| name == "alt" && value == "sse");
    (route.operation.as_str(), dialect::speak(route, &request.body, sse, &credential, knobs))
}

fn replay(shared: &Shared, case: &str, knobs: &Knobs) -> Spoken {
    let found = shared.replays.as_ref().map(|replays| replays.find(case));
    match found {
        Some(Ok(recording)) => {
            let mut answer = knobs.body.as_deref().map_or_else(|| recording.answer(), dialect::told);
            answer.status = knobs.status.unwrap_or(answer.status);
            Spoken { answer, model: recording.model.clone().unwrap_or_default(), stream: recording.streaming }
        }
        Some(Err(cause)) => plain_error(404, &cause.to_string()),
        None => plain_error(404, "the mock was started without recordings"),
    }
}

fn plain_error(status: u16, message: &str) -> Spoken {
    Spoken { answer: dialect::failure(Dialect::OpenAi, status, message), model: String::new(), stream: false }
}

/// What was received, as the ledger keeps it.
fn entry(request: &Request<'_>, target: &Target<'_>, credentials: Vec<Credential>) -> Entry {
    let head = &request.head;
    Entry {
        request_id: head.header("x-request-id").map(|value| String::from_utf8_lossy(value).into_owned()),
        method: head.method.to_owned(),
        path: target.path.to_owned(),
        query: target.query_without_credentials(),
        headers: head
            .headers
            .iter()
            .map(|header| {
                let value = (!credentials::is_credential_header(header.name))
                    .then(|| String::from_utf8_lossy(header.value).into_owned());
                (header.name.to_owned(), value)
            })
            .collect(),
        credentials,
        body_sha256: sha256_hex(&request.body),
        body_len: request.body.len(),
        ..Entry::default()
    }
}
