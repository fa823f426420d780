//! What a request names that may live in a vendor account: files, responses,
//! conversations, caches, by the ids that the vendor gave them.
//!
//! A request is looked through only if the scanner that read it passed a member
//! that may hold such a name. What tools were called with, what functions
//! answered, and schemas are text to the model, whatever it looks like.

use std::borrow::Cow;
use std::ops::BitOrAssign;

use clawgate_shared::catalogue::MAX_ACCOUNT_IDS;

use super::json::{Fault, Scanner, Step};

/// Deeper values are not looked into; nothing that was peeked at is as deep.
const MAX_DEPTH: usize = 256;

/// What names of members may stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks(u8);

impl Marks {
    /// Nothing that lives in an account.
    pub const NONE: Self = Self(0);
    /// Anything.
    pub const ALL: Self = Self(3);
    const THING: Self = Self(1);
    const ID: Self = Self(2);

    /// Whether a request with such members has to be looked through; `items`: it
    /// may name single items of a conversation.
    #[must_use]
    pub const fn any(self, items: bool) -> bool {
        self.0 & (Self::THING.0 | if items { Self::ID.0 } else { 0 }) != 0
    }
}

impl BitOrAssign for Marks {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// What a member of this name may hold.
#[inline]
pub(super) fn mark(name: &[u8]) -> Marks {
    match name {
        b"id" => Marks::ID,
        _ if is_thing(name) => Marks::THING,
        _ => Marks::NONE,
    }
}

/// Members that name something, on whatever route.
fn is_thing(name: &[u8]) -> bool {
    matches!(
        name,
        b"file_id"
            | b"file_ids"
            | b"fileUri"
            | b"file_uri"
            | b"vector_store_id"
            | b"vector_store_ids"
            | b"previous_response_id"
            | b"previous_interaction_id"
            | b"conversation"
            | b"container"
            | b"container_id"
            | b"cachedContent"
            | b"cached_content"
            | b"fileSearchStoreNames"
            | b"file_search_store_names"
            | b"skill_id"
    )
}

/// Members that do so on routes about things in the account; elsewhere the words
/// are too common.
fn is_thing_of_account(name: &[u8]) -> bool {
    matches!(
        name,
        b"input_file_id"
            | b"input_files"
            | b"training_file"
            | b"training_files"
            | b"validation_file"
            | b"validation_files"
            | b"part_ids"
            | b"assistant_id"
            | b"thread_id"
            | b"response_id"
            | b"conversation_id"
            | b"completion_id"
            | b"video_id"
            | b"batch_id"
            | b"task_id"
            | b"context_id"
            | b"dataset_id"
            | b"async_id"
            | b"library_id"
            | b"library_ids"
            | b"requestId"
            | b"operationName"
            | b"generation_id"
    )
}

/// Members whose values are the client's own words or a schema.
fn is_text(name: &[u8], top: bool) -> bool {
    matches!(
        name,
        b"metadata"
            | b"arguments"
            | b"args"
            | b"parameters"
            | b"parametersJsonSchema"
            | b"input_schema"
            | b"json_schema"
            | b"schema"
            | b"responseSchema"
            | b"response_schema"
            | b"responseJsonSchema"
    ) || (!top && matches!(name, b"input" | b"response"))
}

/// What is looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// On a route about things in the account.
    pub account: bool,
    /// Single items of a conversation too (`responses`).
    pub items: bool,
}

/// Why the ids in a body are not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// More than [`MAX_ACCOUNT_IDS`].
    #[error("the request names more than {MAX_ACCOUNT_IDS} things of the vendor account")]
    TooMany,
    /// No JSON object.
    #[error("the request body is not JSON that can be looked through")]
    NotJson,
}

struct Search {
    wanted: Wanted,
    found: Vec<String>,
    too_many: bool,
}

/// The ids that a JSON request body names.
///
/// # Errors
/// See [`Unreadable`].
pub fn references(body: &[u8], wanted: Wanted) -> Result<Vec<String>, Unreadable> {
    let mut search = Search { wanted, found: Vec::new(), too_many: false };
    let mut scanner = Scanner::strict(body);
    let walked = search.object(&mut scanner, Level { depth: 0, top: true, ..Level::default() });
    if search.too_many {
        return Err(Unreadable::TooMany);
    }
    walked.map(|()| search.found).map_err(|_| Unreadable::NotJson)
}

/// The ids that a query names; `query` without the question mark.
#[must_use]
pub fn in_query(query: &str) -> Vec<String> {
    let named = |name: &str| {
        let name = unescaped(name);
        let name = name.strip_suffix(b"[]").unwrap_or(&name);
        matches!(name, b"id" | b"agent_id") || is_thing(name) || is_thing_of_account(name)
    };
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    // What is escaped is no id as a vendor gives it, and so nobody's.
    pairs.filter(|(name, value)| named(name) && !value.is_empty()).map(|(_, value)| value.to_owned()).collect()
}

/// What percent signs spell; a broken escape stays.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let digit = |at: usize| after.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        let escape = digit(0).zip(digit(1)).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        match escape.filter(|_| *byte == b'%') {
            Some(escape) => {
                bytes.push(escape);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    bytes
}

/// Whether a form has a field that names something: such a request is to be sent
/// as JSON, where it can be read. A file that is uploaded may hold anything.
#[must_use]
pub fn in_form(body: &[u8]) -> bool {
    memchr::memmem::find_iter(body, b"name=").any(|at| {
        let line = body.get(..at).unwrap_or_default();
        let line = line.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        let header = line.get(..20).is_some_and(|start| start.eq_ignore_ascii_case(b"content-disposition:"));
        let value = body.get(at + 5..).unwrap_or_default();
        let value = value.strip_prefix(b"\"").unwrap_or(value);
        let end = value.iter().position(|byte| matches!(byte, b'"' | b';' | b'\r' | b'\n' | b'['));
        let name = value.get(..end.unwrap_or(value.len())).unwrap_or_default();
        header && (is_thing(name) || is_thing_of_account(name))
    })
}

/// Where an object stands.
#[derive(Clone, Copy, Default)]
struct Level {
    depth: usize,
    /// The body itself.
    top: bool,
    /// An item of a conversation.
    item: bool,
    /// The value of a member that names something, whose `id` is the name.
    named: bool,
}

impl Search {
    fn push(&mut self, id: Cow<'_, str>) {
        if id.is_empty() || self.found.iter().any(|known| *known == *id) {
            return;
        }
        self.too_many |= self.found.len() >= MAX_ACCOUNT_IDS;
        if !self.too_many {
            self.found.push(id.into_owned());
        }
    }

    fn value(&mut self, scanner: &mut Scanner<'_>, level: Level) -> Step {
        if level.depth > MAX_DEPTH {
            return Err(Fault { at: scanner.at(), deep: true });
        }
        match scanner.next() {
            Some(b'{') => self.object(scanner, level),
            Some(b'[') => {
                let inner = Level { depth: level.depth + 1, ..level };
                scanner.array(|scanner| self.value(scanner, inner)).map(drop)
            }
            _ => scanner.skip().map(drop),
        }
    }

    fn object(&mut self, scanner: &mut Scanner<'_>, level: Level) -> Step {
        // Of a member that stands twice nobody knows which one the vendor heeds.
        let (mut kinds, mut ids, mut message) = (Vec::new(), Vec::new(), false);
        scanner.object(|scanner, name| {
            match name {
                b"type" => kinds.extend(scanner.text()?.map(|(text, _)| text)),
                b"id" => ids.extend(scanner.text()?.map(|(text, _)| text)),
                _ => {
                    message |= matches!(name, b"role" | b"content");
                    self.member(scanner, name, level)?;
                }
            }
            Ok(())
        })?;
        let is = |kind: &str| kinds.iter().any(|text| *text == kind);
        let item = level.item && (is("item_reference") || (kinds.is_empty() && !message));
        if item || (self.wanted.account && is("file_id")) || level.named {
            ids.into_iter().for_each(|id| self.push(Cow::Owned(id)));
        }
        Ok(())
    }

    fn member(&mut self, scanner: &mut Scanner<'_>, name: &[u8], level: Level) -> Step {
        let inner = Level { depth: level.depth + 1, ..Level::default() };
        match name {
            name if is_text(name, level.top) => scanner.skip().map(drop),
            // Within a session's message.
            b"response" if level.top && self.wanted.items && scanner.next() == Some(b'{') => {
                self.object(scanner, Level { top: true, ..inner })
            }
            b"input" if level.top => self.value(scanner, Level { item: self.wanted.items, ..inner }),
            b"conversation" | b"container" if scanner.next() == Some(b'{') => {
                self.object(scanner, Level { named: true, ..inner })
            }
            b"fileUri" | b"file_uri" => self.names(scanner, inner, google_file),
            b"fileName" | b"file_name" if self.wanted.account => {
                self.names(scanner, inner, |text| text.starts_with("files/").then(|| text.into()))
            }
            b"agent_id" if self.wanted.account => self.names(scanner, inner, |text| {
                (text.starts_with("ag_") || text.starts_with("ag:")).then(|| text.into())
            }),
            // The vendor's own skills and agents have plain names.
            b"skill_id" => self.names(scanner, inner, |text| text.starts_with("skill_").then(|| text.into())),
            name if is_thing(name) || (self.wanted.account && is_thing_of_account(name)) => {
                self.names(scanner, inner, |text| Some(text.into()))
            }
            _ => self.value(scanner, inner),
        }
    }

    /// A name, or a list of names.
    fn names(&mut self, scanner: &mut Scanner<'_>, inner: Level, read: fn(&str) -> Option<Cow<'_, str>>) -> Step {
        match scanner.next() {
            Some(b'"') => {
                if let Some((text, _)) = scanner.text()? {
                    read(&text).into_iter().for_each(|id| self.push(id));
                }
                Ok(())
            }
            Some(b'-' | b'0'..=b'9') => {
                let digits = scanner.number()?.unwrap_or_default();
                self.push(String::from_utf8_lossy(digits));
                Ok(())
            }
            Some(b'[') if inner.depth <= MAX_DEPTH => {
                let inner = Level { depth: inner.depth + 1, ..inner };
                scanner.array(|scanner| self.names(scanner, inner, read)).map(drop)
            }
            _ => self.value(scanner, inner),
        }
    }
}

/// The name of a file in Google's account by its address; other addresses are no
/// names. What is at Google and cannot be read stays as it is, and is nobody's.
fn google_file(address: &str) -> Option<Cow<'_, str>> {
    let path = address.split(['?', '#']).next().unwrap_or_default();
    if path.starts_with("files/") {
        return Some(path.into());
    }
    let rest = ["/v1beta/files/", "/v1alpha/files/", "/v1/files/"].iter().find_map(|root| path.split_once(root));
    if let Some((_, rest)) = rest {
        let id = rest.split(['/', ':']).next().unwrap_or_default();
        return Some(format!("files/{id}").into());
    }
    address.to_ascii_lowercase().contains("generativelanguage").then(|| address.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::peek::peek;
    use super::*;

    const PLAIN: Wanted = Wanted { account: false, items: false };
    const ITEMS: Wanted = Wanted { account: false, items: true };
    const ACCOUNT: Wanted = Wanted { account: true, items: false };

    #[test]
    fn names_are_found_where_vendors_heed_them() {
        for (wanted, body, ids) in [
            (PLAIN, json!({"previous_response_id": "resp_1"}), vec!["resp_1"]),
            (PLAIN, json!({"previous_response_id": null, "conversation": {"id": "conv_1"}}), vec!["conv_1"]),
            (PLAIN, json!({"conversation": "conv_1", "file_id": ""}), vec!["conv_1"]),
            (PLAIN, json!({"messages": [{"content": [{"type": "file", "file": {"file_id": "f"}}]}]}), vec!["f"]),
            (PLAIN, json!({"tools": [{"type": "file_search", "vector_store_ids": ["a", "b", "a"]}]}), vec!["a", "b"]),
            (PLAIN, json!({"tools": [{"container": {"type": "auto", "file_ids": ["f"]}}]}), vec!["f"]),
            (PLAIN, json!({"tools": [{"container": "cntr_1"}]}), vec!["cntr_1"]),
            (
                PLAIN,
                json!({"container": {"id": "c", "skills": [{"skill_id": "pdf"}, {"skill_id": "skill_1"}]}}),
                vec!["skill_1", "c"],
            ),
            (PLAIN, json!({"cachedContent": "cachedContents/c"}), vec!["cachedContents/c"]),
            (
                PLAIN,
                json!({"contents": [{"parts": [{"fileData": {"fileUri": "https://h/v1beta/files/x?alt=media"}}]}]}),
                vec!["files/x"],
            ),
            (PLAIN, json!({"file_uri": "https://youtu.be/x"}), vec![]),
            (
                PLAIN,
                json!({"fileUri": "https://generativelanguage.googleapis.com/v1beta/%66iles/x"}),
                vec!["https://generativelanguage.googleapis.com/v1beta/%66iles/x"],
            ),
            (
                ITEMS,
                json!({"input": [{"type": "item_reference", "id": "msg_1"}, {"id": "rs_1"}]}),
                vec!["msg_1", "rs_1"],
            ),
            (ITEMS, json!({"input": [{"type": "message", "id": "msg_1", "content": "x"}]}), vec![]),
            (ITEMS, json!({"prompt": {"id": "pmpt_1"}}), vec![]),
            (PLAIN, json!({"input": [{"type": "item_reference", "id": "msg_1"}]}), vec![]),
            (ACCOUNT, json!({"input_file_id": "f", "metadata": {"file_id": "x"}}), vec!["f"]),
            (ACCOUNT, json!({"file_id": 77}), vec!["77"]),
            (ACCOUNT, json!({"source": {"type": "file_id", "id": "f"}}), vec!["f"]),
            (ACCOUNT, json!({"batch": {"inputConfig": {"fileName": "files/f"}}}), vec!["files/f"]),
            (PLAIN, json!({"assistant_id": "asst_1"}), vec![]),
            (ACCOUNT, json!({"assistant_id": "asst_1"}), vec!["asst_1"]),
        ] {
            let body = body.to_string();
            assert_eq!(references(body.as_bytes(), wanted).expect(&body), ids, "{body}");
        }
    }

    #[test]
    fn what_tools_say_and_schemas_are_no_names() {
        for body in [
            json!({"messages": [{"content": [{"type": "tool_use", "input": {"file_id": "x"}}]}]}),
            json!({"contents": [{"parts": [{"functionCall": {"args": {"file_id": "x"}}}]}]}),
            json!({"contents": [{"parts": [{"functionResponse": {"response": {"file_id": "x"}}}]}]}),
            json!({"tools": [{"function": {"parameters": {"properties": {"file_id": {"type": "string"}}}}}]}),
            json!({"metadata": {"container": "x"}}),
        ] {
            let body = body.to_string();
            assert_eq!(references(body.as_bytes(), ITEMS), Ok(vec![]), "{body}");
        }
    }

    #[test]
    fn escapes_hide_nothing_and_both_of_two_count() {
        let body = br#"{"messages":[{"f\u0069le_id":"a","file_id":"b"}]}"#;
        assert!(peek(body).expect("json").marks.any(false));
        assert_eq!(references(body, PLAIN), Ok(vec!["a".to_owned(), "b".to_owned()]));
        let body =
            br#"{"input":[{"type":"item_reference","id":"a","type":"message","id":"b"},{"id":"c","status":null}]}"#;
        assert_eq!(references(body, ITEMS), Ok(["a", "b", "c"].map(str::to_owned).to_vec()));
        let ordinary = br#"{"model":"m","messages":[{"role":"user","tool_calls":[{"id":"c"}],"content":"file_id"}]}"#;
        let marks = peek(ordinary).expect("json").marks;
        assert!(!marks.any(false) && marks.any(true));
    }

    #[test]
    fn too_many_and_too_deep_are_said() {
        let many: Vec<String> = (0..=MAX_ACCOUNT_IDS).map(|n| n.to_string()).collect();
        assert_eq!(references(json!({"file_ids": many}).to_string().as_bytes(), PLAIN), Err(Unreadable::TooMany));
        for body in ["[", "{\"a\":", "", "7", &"{\"a\":[".repeat(300)] {
            assert_eq!(references(body.as_bytes(), PLAIN), Err(Unreadable::NotJson), "{body:.20}");
        }
    }

    #[test]
    fn forms_and_queries_are_looked_at() {
        let form = |name: &str| format!("--b\r\nContent-Disposition: form-data; name={name}\r\n\r\nv\r\n--b--");
        assert!(in_form(form("\"file_id\"").as_bytes()) && in_form(form("file_ids[]").as_bytes()));
        assert!(!in_form(form("\"file\"; filename=\"x\"").as_bytes()));
        assert!(!in_form(b"\r\n<input name=\"file_id\">"));
        assert_eq!(in_query("task_id=7&x=1&after=f&id=&task%5Fid=8"), ["7", "8"]);
        assert!(in_query("include%5B%5D=file_search_call.results&limit=2").is_empty());
        assert_eq!(in_query("file_ids[]=a&file_ids%5b%5d=b"), ["a", "b"]);
    }

    proptest! {
        #[test]
        fn a_name_is_found_only_if_it_is_marked(text in "(\\{|\\}|\\[|\\]|:|,|\"file_id\"|\"id\"|\"x\"|\"input\"|1){0,24}") {
            if let (Ok(peeked), Ok(found)) = (peek(text.as_bytes()), references(text.as_bytes(), ITEMS)) {
                prop_assert!(found.is_empty() || peeked.marks.any(true), "{text}");
            }
        }
    }
}
