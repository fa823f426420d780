//! Ids of what a vendor made in its account, read from the answers of routes
//! that make things there. Answers of models are read by `usage`.

use clawgate_shared::catalogue::{MAX_ACCOUNT_ID, MAX_ACCOUNT_IDS};

use super::json::{Scanner, Step};

/// Most of an answer that is kept: ids stand in front.
const MAX_BODY: usize = 1 << 20;

/// What is looked for in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// The thing that the request made.
    Made,
    /// Results that the vendor added to a thing of the caller's.
    Results,
    /// Results of work that the query or the body named.
    Work,
}

/// Collects one answer.
#[derive(Debug)]
pub struct Listener {
    names: Names,
    body: Vec<u8>,
}

impl Listener {
    /// Of an answer that is about to come.
    #[must_use]
    pub const fn new(names: Names) -> Self {
        Self { names, body: Vec::new() }
    }

    /// Takes a chunk.
    pub fn push(&mut self, chunk: &[u8]) {
        let room = MAX_BODY.saturating_sub(self.body.len());
        self.body.extend_from_slice(chunk.get(..room.min(chunk.len())).unwrap_or_default());
    }

    /// What the answer named, when it is whole.
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
        made(&self.body, self.names)
    }
}

/// Adds an id that is one and is not there yet, as long as there is room.
pub fn note(ids: &mut Vec<String>, id: String) {
    if (1..=MAX_ACCOUNT_ID).contains(&id.len()) && ids.len() < MAX_ACCOUNT_IDS && !ids.contains(&id) {
        ids.push(id);
    }
}

/// The ids in an answer: one JSON object, or a stream of events whose first
/// object that names any counts.
#[must_use]
pub fn made(body: &[u8], names: Names) -> Vec<String> {
    let mut ids = Vec::new();
    if body.trim_ascii_start().first() == Some(&b'{') {
        let _ = object(&mut Scanner::lenient(body), names, true, &mut ids);
        return ids;
    }
    if names == Names::Made {
        let events = body.split(|byte| *byte == b'\n').filter_map(|line| line.strip_prefix(b"data:"));
        for data in events.filter(|data| data.trim_ascii_start().first() == Some(&b'{')) {
            let _ = object(&mut Scanner::lenient(data), names, true, &mut ids);
            if !ids.is_empty() {
                break;
            }
        }
    }
    ids
}

fn object(scanner: &mut Scanner<'_>, names: Names, top: bool, ids: &mut Vec<String>) -> Step {
    scanner
        .object(|scanner, name| {
            let made = names == Names::Made;
            match name {
                b"output_file_id" | b"error_file_id" | b"output_file" | b"error_file" | b"responsesFile"
                | b"responses_file" | b"result_files" => texts(scanner, ids),
                b"id" | b"task_id" | b"batch_id" | b"job_id" | b"thread_id" | b"context_id" | b"voice_id"
                | b"async_id" | b"requestId" | b"invocationArn"
                    if made =>
                {
                    texts(scanner, ids)
                }
                b"file_id" if names != Names::Results => texts(scanner, ids),
                b"name" if made => resource(scanner, ids),
                b"file" | b"output" | b"data" if top && names != Names::Results && scanner.next() == Some(b'{') => {
                    object(scanner, names, false, ids)
                }
                b"response" if top && scanner.next() == Some(b'{') => object(scanner, Names::Results, false, ids),
                _ => scanner.skip().map(drop),
            }
        })
        .map(drop)
}

/// An id, or a list of ids; some vendors count instead.
fn texts(scanner: &mut Scanner<'_>, ids: &mut Vec<String>) -> Step {
    match scanner.next() {
        Some(b'"') => scanner.text().map(|text| text.into_iter().for_each(|(id, _)| note(ids, id))),
        Some(b'0'..=b'9') => scanner.number().map(|digits| {
            note(ids, String::from_utf8_lossy(digits.unwrap_or_default()).into_owned());
        }),
        Some(b'[') => scanner
            .array(|scanner| scanner.text().map(|text| text.into_iter().for_each(|(id, _)| note(ids, id))))
            .map(drop),
        _ => scanner.skip().map(drop),
    }
}

/// A name as Google writes it. That of an operation below a thing that is being
/// made names the thing too.
fn resource(scanner: &mut Scanner<'_>, ids: &mut Vec<String>) -> Step {
    let Some((name, _)) = scanner.text()? else { return Ok(()) };
    if !name.contains('/') {
        return Ok(());
    }
    let below = ["tunedModels/", "corpora/", "fileSearchStores/"].iter().any(|start| name.starts_with(start));
    if let Some((thing, _)) = name.split_once("/operations/").filter(|_| below) {
        note(ids, thing.to_owned());
    }
    note(ids, name);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_is_read_from_every_vendors_answer() {
        for (names, body, want) in [
            (Names::Made, r#"{"object":"file","id":"file-1","filename":"x"}"#, vec!["file-1"]),
            (Names::Made, r#"{"file":{"name":"files/abc","uri":"https://h/v1beta/files/abc"}}"#, vec!["files/abc"]),
            (Names::Made, r#"{"name":"cachedContents/c","displayName":"d"}"#, vec!["cachedContents/c"]),
            (
                Names::Made,
                r#"{"name":"tunedModels/t/operations/o"}"#,
                vec!["tunedModels/t", "tunedModels/t/operations/o"],
            ),
            (Names::Made, r#"{"name":"my file","id":"f"}"#, vec!["f"]),
            (Names::Made, r#"{"output":{"task_status":"PENDING","task_id":"t"},"request_id":"r"}"#, vec!["t"]),
            (Names::Made, r#"{"file":{"file_id":123}}"#, vec!["123"]),
            (Names::Made, r#"{"id":"batch_1","input_file_id":"f","output_file_id":null}"#, vec!["batch_1"]),
            (Names::Made, r#"{"id":"x","metadata":{"id":"y"}}"#, vec!["x"]),
            (
                Names::Made,
                "event: thread.run.created\ndata: {\"id\":\"run_1\",\"thread_id\":\"t\"}\n\ndata: {\"id\":\"msg\"}\n\n",
                vec!["run_1", "t"],
            ),
            (Names::Results, r#"{"id":"batch_1","output_file_id":"o","error_file_id":"e"}"#, vec!["o", "e"]),
            (Names::Results, r#"{"id":"x","metadata":{"output_file_id":"y"}}"#, vec![]),
            (Names::Results, r#"{"name":"batches/b","response":{"responsesFile":"files/r"}}"#, vec!["files/r"]),
            (Names::Results, r#"{"id":"ftjob","result_files":["a","b"]}"#, vec!["a", "b"]),
            (Names::Work, r#"{"task_id":"t","file_id":"9"}"#, vec!["9"]),
            (Names::Made, r#"{"id":"cut","rest":"#, vec!["cut"]),
            (Names::Made, "", vec![]),
            (Names::Made, "null", vec![]),
        ] {
            assert_eq!(made(body.as_bytes(), names), want, "{body}");
        }
    }

    #[test]
    fn ids_are_bounded_in_length_and_number() {
        let long = format!(r#"{{"id":"{}"}}"#, "x".repeat(MAX_ACCOUNT_ID + 1));
        assert!(made(long.as_bytes(), Names::Made).is_empty());
        let many: Vec<String> = (0..200).map(|n| format!("\"f{n}\"")).collect();
        let many = format!(r#"{{"result_files":[{}]}}"#, many.join(","));
        assert_eq!(made(many.as_bytes(), Names::Results).len(), MAX_ACCOUNT_IDS);
        let mut listener = Listener::new(Names::Made);
        listener.push(br#"{"id":"f","x":""#);
        (0..3).for_each(|_| listener.push(&[b'x'; MAX_BODY]));
        assert_eq!(listener.ids(), ["f"]);
        assert_eq!(listener.body.len(), MAX_BODY);
    }
}
