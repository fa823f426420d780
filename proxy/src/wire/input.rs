//! What a request body adds to the prompt beyond its own bytes.
//!
//! Text costs at most one token per byte. A picture, a file behind a name, a
//! stored conversation or a tool that the vendor runs costs what only the vendor
//! knows. When in doubt, the answer is the larger one.

use super::json::{Scanner, Step};

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Input {
    /// Something is named and not in the body, or a tool of the vendor's may add
    /// to it: only the model's context window bounds the prompt.
    pub unbounded: bool,
    /// Pictures that are in the body.
    pub images: u64,
    /// Tools that the client runs: vendors write instructions around them.
    pub tools: u64,
    /// Prompts in a list, each of which is answered.
    pub prompts: u64,
}

/// Deeper values are not looked into: they count as unbounded.
const MAX_DEPTH: usize = 64;

/// Members at the top that hold what becomes the prompt.
const PROMPT: [&[u8]; 9] = [
    b"messages",
    b"input",
    b"contents",
    b"system",
    b"systemInstruction",
    b"system_instruction",
    b"prompt",
    b"content",
    b"requests",
];

/// Members at the top by which the vendor adds something, unless they are null,
/// false or empty.
const ADDS: [&[u8]; 14] = [
    b"web_search_options",
    b"search_parameters",
    b"plugins",
    b"mcp_servers",
    b"container",
    b"data_sources",
    b"connectors",
    b"enable_search",
    b"previous_response_id",
    b"conversation",
    b"cachedContent",
    b"cached_content",
    b"file_ids",
    b"attachments",
];

/// Kinds of parts whose content is elsewhere, or grows when it is read.
const FOREIGN: [&str; 9] = [
    "file",
    "input_file",
    "document",
    "video",
    "video_url",
    "input_video",
    "container_upload",
    "item_reference",
    "file_search_call",
];

/// Looks into a body that is a JSON object; what is none counts as unbounded.
#[must_use]
pub fn input(body: &[u8]) -> Input {
    let mut found = Input::default();
    let mut scanner = Scanner::lenient(body);
    let walked = scanner.object(|scanner, name| {
        if name == b"tools" && scanner.next() == Some(b'[') {
            scanner.array(|scanner| found.tool(scanner)).map(drop)
        } else if ADDS.contains(&name) {
            let value = scanner.raw()?;
            found.unbounded |= !matches!(value, b"null" | b"false" | b"[]" | b"{}" | b"\"\"");
            Ok(())
        } else if name == b"prompt" && scanner.next() == Some(b'{') {
            // A stored prompt.
            found.unbounded = true;
            scanner.skip().map(drop)
        } else if name == b"prompt" && scanner.next() == Some(b'[') {
            // Texts, or lists of token numbers; one such list is one prompt. An
            // object is somebody's own idea of one.
            scanner
                .array(|scanner| {
                    let first = scanner.next();
                    found.prompts += u64::from(matches!(first, Some(b'"' | b'[' | b'{')));
                    found.unbounded |= first == Some(b'{');
                    scanner.skip().map(drop)
                })
                .map(drop)
        } else if PROMPT.contains(&name) {
            found.value(scanner, 0)
        } else {
            scanner.skip().map(drop)
        }
    });
    found.unbounded |= walked.is_err();
    found
}

impl Input {
    /// One entry of `tools`: functions of the client add their text; any other
    /// kind is the vendor's.
    fn tool(&mut self, scanner: &mut Scanner<'_>) -> Step {
        if scanner.next() != Some(b'{') {
            self.unbounded = true;
            return scanner.skip().map(drop);
        }
        let (mut own, mut foreign) = (false, false);
        scanner.object(|scanner, name| {
            match name {
                b"type" => {
                    let kind = scanner.text()?.map(|(kind, _)| kind).unwrap_or_default();
                    let runs_here = ["bash_", "text_editor_", "computer_2", "memory_"];
                    own |= matches!(kind.as_str(), "function" | "custom" | "local_shell")
                        || runs_here.iter().any(|start| kind.starts_with(start));
                    foreign |= !own;
                    return Ok(());
                }
                b"functionDeclarations" | b"function_declarations" | b"input_schema" => own = true,
                b"name" | b"description" | b"function" | b"parameters" | b"strict" | b"cache_control" | b"format"
                | b"display_width_px" | b"display_height_px" | b"display_number" | b"input_examples" => {}
                _ => foreign = true,
            }
            scanner.skip().map(drop)
        })?;
        self.tools += 1;
        self.unbounded |= foreign || !own;
        Ok(())
    }

    fn value(&mut self, scanner: &mut Scanner<'_>, depth: usize) -> Step {
        if depth > MAX_DEPTH {
            self.unbounded = true;
            return scanner.skip().map(drop);
        }
        match scanner.next() {
            Some(b'{') => scanner.object(|scanner, name| self.member(scanner, name, depth)).map(drop),
            Some(b'[') => scanner.array(|scanner| self.value(scanner, depth + 1)).map(drop),
            _ => scanner.skip().map(drop),
        }
    }

    fn member(&mut self, scanner: &mut Scanner<'_>, name: &[u8], depth: usize) -> Step {
        match name {
            b"image_url" => self.image_url(scanner),
            b"file_id" | b"file_url" | b"fileUri" | b"file_uri" | b"fileData" | b"file_data" => {
                self.unbounded |= scanner.raw()? != b"null";
                Ok(())
            }
            b"inlineData" | b"inline_data" | b"source" if scanner.next() == Some(b'{') => self.source(scanner),
            b"type" => {
                let kind = scanner.text()?.map(|(kind, _)| kind).unwrap_or_default();
                self.unbounded |= FOREIGN.contains(&kind.as_str());
                Ok(())
            }
            // What a tool was called with, and what a function answered, is text
            // to the model, whatever it looks like.
            b"input" | b"args" | b"arguments" | b"response" => scanner.skip().map(drop),
            _ => self.value(scanner, depth + 1),
        }
    }

    /// `"data:…"`, `"https://…"`, or an object with such a `url`.
    fn image_url(&mut self, scanner: &mut Scanner<'_>) -> Step {
        if scanner.next() == Some(b'{') {
            return scanner
                .object(|scanner, name| match name {
                    b"url" => self.image(scanner),
                    _ => scanner.skip().map(drop),
                })
                .map(drop);
        }
        self.image(scanner)
    }

    fn image(&mut self, scanner: &mut Scanner<'_>) -> Step {
        match scanner.raw()? {
            b"null" => {}
            url if url.starts_with(b"\"data:image/") => self.images += 1,
            _ => self.unbounded = true,
        }
        Ok(())
    }

    /// Anthropic's `source` and Gemini's `inlineData`.
    fn source(&mut self, scanner: &mut Scanner<'_>) -> Step {
        let (mut kind, mut media) = (String::new(), String::new());
        scanner.object(|scanner, name| {
            match name {
                b"type" => kind = scanner.text()?.map(|(text, _)| text).unwrap_or_default(),
                b"media_type" | b"mimeType" | b"mime_type" => {
                    media = scanner.text()?.map(|(text, _)| text).unwrap_or_default();
                }
                _ => return scanner.skip().map(drop),
            }
            Ok(())
        })?;
        match (kind.as_str(), media.split('/').next().unwrap_or("")) {
            ("base64" | "", "image") => self.images += 1,
            // Sound costs less than its bytes.
            ("base64" | "", "audio" | "text") | ("text" | "content", _) => {}
            _ => self.unbounded = true,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(body: &str) -> (bool, u64, u64) {
        let Input { unbounded, images, tools, .. } = input(body.as_bytes());
        (unbounded, images, tools)
    }

    #[test]
    fn text_and_own_tools_are_bounded_by_their_bytes() {
        for (body, tools) in [
            (r#"{"model":"m","messages":[{"role":"user","content":"see https://x/y.png"}]}"#, 0),
            (r#"{"messages":[{"role":"user","content":[{"type":"text","text":"\"type\":\"file\""}]}]}"#, 0),
            (r#"{"messages":[],"tools":[{"type":"function","function":{"name":"f","parameters":{"file_id":1}}}]}"#, 1),
            (r#"{"messages":[],"tools":[{"name":"f","description":"d","input_schema":{"type":"object"}}]}"#, 1),
            (r#"{"contents":[],"tools":[{"functionDeclarations":[{"name":"f"}]}]}"#, 1),
            (r#"{"messages":[],"tools":[{"type":"bash_20250124","name":"bash"}]}"#, 1),
            (r#"{"messages":[{"content":[{"type":"tool_use","input":{"type":"file","file_id":"f"}}]}]}"#, 0),
            (r#"{"messages":[{"tool_calls":[{"function":{"arguments":"{\"file_id\":1}"}}]}]}"#, 0),
            (r#"{"input":"hello","previous_response_id":null,"plugins":[]}"#, 0),
            (r#"{"contents":[{"parts":[{"inlineData":{"mimeType":"audio/wav","data":"AA"}}]}]}"#, 0),
        ] {
            assert_eq!(found(body), (false, 0, tools), "{body}");
        }
    }

    #[test]
    fn prompts_in_a_list_are_counted() {
        for (body, prompts) in [
            (r#"{"prompt":"one"}"#, 0),
            (r#"{"prompt":["a","b","c"]}"#, 3),
            (r#"{"prompt":[[1,2],[3]]}"#, 2),
            (r#"{"prompt":[1,2,3]}"#, 0),
            (r#"{"prompt":[{"prompt_string":"a"},"b"]}"#, 2),
        ] {
            assert_eq!(input(body.as_bytes()).prompts, prompts, "{body}");
        }
    }

    #[test]
    fn pictures_in_the_body_are_counted() {
        for body in [
            r#"{"messages":[{"content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AA"}}]}]}"#,
            r#"{"input":[{"content":[{"type":"input_image","image_url":"data:image/png;base64,AA"}]}]}"#,
            r#"{"messages":[{"content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AA"}}]}]}"#,
            r#"{"contents":[{"parts":[{"inlineData":{"mimeType":"image/png","data":"AA"}}]}]}"#,
            r#"{"messages":[{"content":[{"type":"tool_result","content":[{"type":"image","source":{"data":"AA","media_type":"image/gif","type":"base64"}}]}]}]}"#,
        ] {
            assert_eq!(found(body), (false, 1, 0), "{body}");
        }
    }

    #[test]
    fn what_is_elsewhere_or_run_by_the_vendor_is_unbounded() {
        for body in [
            r#"{"messages":[{"content":[{"type":"image_url","image_url":{"url":"https://x/y.png"}}]}]}"#,
            r#"{"messages":[{"content":[{"type":"image_\u0075rl","imag\u0065_url":{"url":"https://x/y.png"}}]}]}"#,
            r#"{"input":[{"content":[{"type":"input_image","file_id":"file_1"}]}]}"#,
            r#"{"messages":[{"content":[{"type":"document","source":{"type":"base64","media_type":"application/pdf"}}]}]}"#,
            r#"{"contents":[{"parts":[{"fileData":{"fileUri":"gs://x"}}]}]}"#,
            r#"{"contents":[{"parts":[{"inlineData":{"mimeType":"video/mp4","data":"AA"}}]}]}"#,
            r#"{"prompt":["a",{"prompt_string":"b","multimodal_data":["AA"]}]}"#,
            r#"{"input":"x","previous_response_id":"resp_1"}"#,
            r#"{"input":"x","conversation":{"id":"conv_1"}}"#,
            r#"{"contents":[],"cachedContent":"cachedContents/1"}"#,
            r#"{"input":"x","prompt":{"id":"pmpt_1"}}"#,
            r#"{"input":"x","tools":[{"type":"web_search"}]}"#,
            r#"{"input":"x","tools":[{"type":"function","name":"f"},{"type":"file_search","vector_store_ids":["v"]}]}"#,
            r#"{"messages":[],"tools":[{"type":"web_search_20250305","name":"web_search"}]}"#,
            r#"{"contents":[],"tools":[{"googleSearch":{}}]}"#,
            r#"{"contents":[],"tools":[{"functionDeclarations":[],"codeExecution":{}}]}"#,
            r#"{"messages":[],"web_search_options":{"search_context_size":"low"}}"#,
            r#"{"messages":[],"plugins":[{"id":"web"}]}"#,
            r#"{"messages":[],"mcp_servers":[{"url":"https://x"}]}"#,
            r#"{"messages":[],"tools":["x"]}"#,
            "not json",
        ] {
            assert!(input(body.as_bytes()).unbounded, "{body}");
        }
    }
}
