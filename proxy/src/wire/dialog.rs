//! What the messages of a realtime session say: which responses begin and end,
//! what they used, and which models are asked for.
//!
//! OpenAI's Realtime and its Responses over a WebSocket speak of responses by
//! id; Gemini Live has one at a time, without one.

use clawgate_shared::dialect::Protocol;

use super::json::{Scanner, Step};
use super::usage::{self, Report};

/// Models that one message may name; more make it unreadable.
const MAX_MODELS: usize = 8;

/// What a vendor's message says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// A response began, with its id (Gemini: empty).
    pub began: Option<String>,
    /// Some of an answer came.
    pub output: bool,
    /// A response is over.
    pub ended: Option<Ended>,
    /// The turn is over; what it used may still be said.
    pub turn_over: bool,
    /// The model that writes down what is said to the session.
    pub transcriber: Option<String>,
    /// What was said is written down, which is billed apart from responses.
    pub transcribed: Option<Report>,
}

/// The end of a response.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// As it began.
    pub id: String,
    /// In one word of ours or the vendor's, when it failed.
    pub failed: Option<String>,
    /// What it used.
    pub report: Report,
}

/// What a client's message asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Every model it names.
    pub models: Vec<String>,
    /// It asks for a response.
    pub response: bool,
}

/// Whether sessions of this protocol can be read.
#[must_use]
pub const fn is_read(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::OpenAiRealtime | Protocol::OpenAiResponses | Protocol::GeminiLive)
}

/// Reads a message of the vendor; what is not JSON says nothing.
#[must_use]
pub fn heard(protocol: Protocol, vendor: &str, json: &[u8]) -> Heard {
    if protocol == Protocol::GeminiLive { gemini(vendor, json) } else { openai(vendor, json) }
}

/// Members of a message, as far as they matter here.
#[derive(Default)]
struct Message {
    kind: String,
    id: String,
    status: String,
    transcriber: Option<String>,
}

fn openai(vendor: &str, json: &[u8]) -> Heard {
    let mut said = Message::default();
    let mut scanner = Scanner::lenient(json);
    let _ = fields(&mut scanner, |scanner, name| match name {
        b"type" => scanner.text().map(|text| said.kind = text.map(|(text, _)| text).unwrap_or_default()),
        b"response" => fields(scanner, |scanner, name| {
            let into = match name {
                b"id" => &mut said.id,
                b"status" => &mut said.status,
                _ => return scanner.skip().map(drop),
            };
            scanner.text().map(|text| *into = text.map(|(text, _)| text).unwrap_or_default())
        }),
        b"session" => {
            let mut models = Vec::new();
            transcriber(scanner, &mut models)?;
            said.transcriber = models.pop();
            Ok(())
        }
        _ => scanner.skip().map(drop),
    });
    let read = || usage::read_body(Protocol::OpenAiResponses, vendor, json);
    let mut heard = Heard { transcriber: said.transcriber, ..Heard::default() };
    match said.kind.as_str() {
        "response.created" => heard.began = Some(said.id),
        "response.done" | "response.completed" | "response.incomplete" | "response.failed" => {
            let report = read();
            let failed = (said.status == "failed" || said.kind == "response.failed")
                .then(|| report.error.clone().unwrap_or_else(|| "failed".to_owned()));
            heard.ended = Some(Ended { id: said.id, failed, report });
        }
        "conversation.item.input_audio_transcription.completed" => heard.transcribed = Some(read()),
        kind => heard.output = kind.ends_with(".delta"),
    }
    heard
}

fn gemini(vendor: &str, json: &[u8]) -> Heard {
    let mut heard = Heard::default();
    let mut counted = false;
    let mut scanner = Scanner::lenient(json);
    let _ = fields(&mut scanner, |scanner, name| match name {
        b"serverContent" => fields(scanner, |scanner, name| {
            let value = scanner.raw()?;
            match name {
                b"modelTurn" => heard.output = true,
                b"turnComplete" | b"interrupted" => heard.turn_over |= value == b"true",
                _ => {}
            }
            Ok(())
        }),
        b"toolCall" => {
            heard.output = true;
            scanner.skip().map(drop)
        }
        b"usageMetadata" => {
            counted = true;
            scanner.skip().map(drop)
        }
        _ => scanner.skip().map(drop),
    });
    if heard.output {
        heard.began = Some(String::new());
    }
    if counted {
        let report = usage::read_body(Protocol::Gemini, vendor, json);
        heard.ended = report.usage.has_counts().then(|| Ended { report, ..Ended::default() });
    }
    heard
}

/// Reads a message of the client; `None`: it is no JSON that says everything
/// where it can be seen.
#[must_use]
pub fn asked(json: &[u8]) -> Option<Asked> {
    let mut asked = Asked::default();
    let mut scanner = Scanner::strict(json);
    let models = &mut asked.models;
    let whole = object(&mut scanner, |scanner, name| match name {
        b"type" => scanner.text().map(|text| {
            asked.response |= text.is_some_and(|(text, _)| text == "response.create");
        }),
        b"model" => model(scanner, models),
        b"session" => transcriber(scanner, models),
        b"response" | b"setup" => {
            fields(
                scanner,
                |scanner, name| {
                    if name == b"model" { model(scanner, models) } else { scanner.skip().map(drop) }
                },
            )
        }
        _ => scanner.skip().map(drop),
    });
    let readable = whole.and_then(|()| scanner.end()).is_ok() && asked.models.len() <= MAX_MODELS;
    readable.then_some(asked)
}

/// Models within a session: its own, then the one that writes down what is
/// said, where either version of the interface has it.
fn transcriber(scanner: &mut Scanner<'_>, models: &mut Vec<String>) -> Step {
    fn of_input(scanner: &mut Scanner<'_>, models: &mut Vec<String>) -> Step {
        fields(
            scanner,
            |scanner, name| {
                if name == b"model" { model(scanner, models) } else { scanner.skip().map(drop) }
            },
        )
    }
    let mut own = Vec::new();
    let mut writers = Vec::new();
    fields(scanner, |scanner, name| match name {
        b"model" => model(scanner, &mut own),
        b"input_audio_transcription" => of_input(scanner, &mut writers),
        b"audio" => fields(scanner, |scanner, name| match name {
            b"input" => fields(scanner, |scanner, name| match name {
                b"transcription" => of_input(scanner, &mut writers),
                _ => scanner.skip().map(drop),
            }),
            _ => scanner.skip().map(drop),
        }),
        _ => scanner.skip().map(drop),
    })?;
    models.append(&mut own);
    models.append(&mut writers);
    Ok(())
}

/// A model's name, without the collection that Google puts before it.
fn model(scanner: &mut Scanner<'_>, models: &mut Vec<String>) -> Step {
    let Some((name, _)) = scanner.text()? else { return Ok(()) };
    let bare = name.rsplit_once("models/").map_or(name.as_str(), |(_, bare)| bare);
    if !bare.is_empty() && models.len() <= MAX_MODELS {
        models.push(bare.to_owned());
    }
    Ok(())
}

/// Walks an object; anything else is passed over.
fn fields(scanner: &mut Scanner<'_>, member: impl FnMut(&mut Scanner<'_>, &[u8]) -> Step) -> Step {
    if scanner.next() == Some(b'{') { object(scanner, member) } else { scanner.skip().map(drop) }
}

fn object(scanner: &mut Scanner<'_>, member: impl FnMut(&mut Scanner<'_>, &[u8]) -> Step) -> Step {
    scanner.object(member).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn realtime(json: &str) -> Heard {
        heard(Protocol::OpenAiRealtime, "openai", json.as_bytes())
    }

    #[test]
    fn a_realtime_response_begins_streams_and_ends() {
        let began = realtime(r#"{"type":"response.created","response":{"object":"realtime.response","id":"resp_1"}}"#);
        assert_eq!(began, Heard { began: Some("resp_1".to_owned()), ..Heard::default() });
        assert!(realtime(r#"{"type":"response.output_audio.delta","response_id":"resp_1","delta":"AAAA"}"#).output);
        assert_eq!(realtime(r#"{"type":"rate_limits.updated","rate_limits":[]}"#), Heard::default());
        let done = realtime(
            r#"{"type":"response.done","response":{"id":"resp_1","status":"completed","output":[{"usage":9}],"usage":{
            "total_tokens":253,"input_tokens":132,"output_tokens":121,
            "input_token_details":{"text_tokens":119,"audio_tokens":13,"image_tokens":0,"cached_tokens":64,
            "cached_tokens_details":{"text_tokens":64,"audio_tokens":0,"image_tokens":0}},
            "output_token_details":{"text_tokens":30,"audio_tokens":91}}}}"#,
        );
        let ended = done.ended.expect("ended");
        assert_eq!((ended.id.as_str(), ended.failed), ("resp_1", None));
        let usage = ended.report.usage;
        assert_eq!((usage.input, usage.output, usage.cached_input), (Some(132), Some(121), Some(64)));
        assert_eq!((usage.billing.input_audio, usage.billing.output_audio), (Some(13), Some(91)));
        let failed = realtime(
            r#"{"type":"response.done","response":{"id":"r","status":"failed","status_details":{"type":"failed"}}}"#,
        );
        let failed = failed.ended.expect("ended");
        assert_eq!((failed.failed.as_deref(), failed.report.usage.has_counts()), (Some("failed"), false));
    }

    #[test]
    fn responses_over_a_websocket_end_as_they_do_over_sse() {
        let done = realtime(
            r#"{"type":"response.completed","response":{"id":"r","model":"gpt-5","status":"completed",
            "usage":{"input_tokens":3,"output_tokens":4,"output_tokens_details":{"reasoning_tokens":2},"total_tokens":7}}}"#,
        );
        let usage = done.ended.expect("ended").report.usage;
        assert_eq!((usage.input, usage.output, usage.reasoning), (Some(3), Some(4), Some(2)));
        assert_eq!(usage.model.as_deref(), Some("gpt-5"));
        let failed = realtime(
            r#"{"type":"response.failed","response":{"id":"r","status":"failed","error":{"code":"server_error","message":"no"}}}"#,
        );
        assert_eq!(failed.ended.expect("ended").failed.as_deref(), Some("server_error"));
    }

    #[test]
    fn transcription_is_told_apart() {
        let session = realtime(
            r#"{"type":"session.updated","session":{"model":"gpt-realtime","audio":{"input":{"transcription":{"model":"gpt-4o-transcribe"}}}}}"#,
        );
        assert_eq!(session.transcriber.as_deref(), Some("gpt-4o-transcribe"));
        let done = realtime(
            r#"{"type":"conversation.item.input_audio_transcription.completed","transcript":"hi","usage":{"type":"tokens",
            "total_tokens":22,"input_tokens":13,"input_token_details":{"text_tokens":0,"audio_tokens":13},"output_tokens":9}}"#,
        );
        let usage = done.transcribed.expect("transcribed").usage;
        assert_eq!((usage.input, usage.output, usage.billing.input_audio), (Some(13), Some(9), Some(13)));
    }

    #[test]
    fn gemini_live_reports_by_turn() {
        let live = |json: &str| heard(Protocol::GeminiLive, "google", json.as_bytes());
        assert_eq!(live(r#"{"setupComplete":{}}"#), Heard::default());
        let piece = live(r#"{"serverContent":{"modelTurn":{"parts":[{"inlineData":{"data":"AAAA"}}]}}}"#);
        assert!(piece.output && piece.began.is_some() && !piece.turn_over);
        let end = live(
            r#"{"serverContent":{"turnComplete":true},"usageMetadata":{"promptTokenCount":70,"responseTokenCount":40,
            "thoughtsTokenCount":5,"toolUsePromptTokenCount":2,"totalTokenCount":117,
            "promptTokensDetails":[{"modality":"AUDIO","tokenCount":60}],
            "responseTokensDetails":[{"modality":"AUDIO","tokenCount":39}]}}"#,
        );
        assert!(end.turn_over && !end.output);
        let usage = end.ended.expect("ended").report.usage;
        assert_eq!((usage.input, usage.output, usage.reasoning), (Some(72), Some(45), Some(5)));
        assert_eq!((usage.billing.input_audio, usage.billing.output_audio), (Some(60), Some(39)));
        assert_eq!(live("not JSON"), Heard::default());
    }

    #[test]
    fn every_model_that_a_client_names_is_found() {
        for (json, models, response) in [
            (r#"{"type":"input_audio_buffer.append","audio":"AAAA"}"#, vec![], false),
            (r#"{"type":"response.create","model":"gpt-5","input":[{"model":"none"}]}"#, vec!["gpt-5"], true),
            (r#"{"type":"response.create","response":{"model":"a"},"mod\u0065l":"b"}"#, vec!["a", "b"], true),
            (r#"{"setup":{"model":"models/gemini-live-1","generationConfig":{}}}"#, vec!["gemini-live-1"], false),
            (r#"{"setup":{"model":"projects/p/publishers/google/models/g"}}"#, vec!["g"], false),
            (r#"{"type":"session.update","session":{"input_audio_transcription":{"model":"w"}}}"#, vec!["w"], false),
            (r#"{"session":{"audio":{"input":{"transcription":{"model":"w"}}},"model":"m"}}"#, vec!["m", "w"], false),
        ] {
            let asked = asked(json.as_bytes()).expect(json);
            assert_eq!(
                (asked.models, asked.response),
                (models.iter().map(|m| (*m).to_owned()).collect(), response),
                "{json}"
            );
        }
        for broken in ["", "[]", "{\"model\":\"x\"", "{\"model\":\"x\"} {}", "\u{0}"] {
            assert_eq!(asked(broken.as_bytes()), None, "{broken}");
        }
        let many = format!("{{{}\"a\":1}}", "\"model\":\"x\",".repeat(20));
        assert_eq!(asked(many.as_bytes()), None);
    }
}
