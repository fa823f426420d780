//! An answer before it meets the wire: bytes, where a stream may be cut, and
//! what was promised and billed.

use std::io::Write;

use bytes::Bytes;

/// A place where a stream may be cut into writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Body bytes up to here.
    pub(crate) end: usize,
    /// Output tokens generated up to here.
    pub(crate) tokens: u64,
}

/// What a vendor bills, and what the ledger records as the truth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bill {
    /// Prompt tokens, cached ones included.
    pub(crate) input: u64,
    /// Generated tokens, reasoning included, when the answer is completed.
    pub(crate) output: u64,
}

/// A complete answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// HTTP status.
    pub(crate) status: u16,
    /// `content-type`; empty: the header is left out.
    pub(crate) content_type: String,
    /// Further headers.
    pub(crate) headers: Vec<(String, String)>,
    /// The whole body.
    pub(crate) body: Bytes,
    /// Where it may be cut; the last cut is the end.
    pub(crate) cuts: Vec<Cut>,
    /// Chunked instead of a content length.
    pub(crate) chunked: bool,
    /// What it costs.
    pub(crate) bill: Bill,
}

impl Answer {
    /// A body in one piece with a content length.
    pub(crate) fn whole(status: u16, content_type: &str, body: Vec<u8>, bill: Bill) -> Self {
        let cuts = vec![Cut { end: body.len(), tokens: bill.output }];
        Self {
            status,
            content_type: content_type.to_owned(),
            headers: Vec::new(),
            body: body.into(),
            cuts,
            chunked: false,
            bill,
        }
    }

    /// A JSON body in one piece.
    pub(crate) fn json(status: u16, body: &serde_json::Value, bill: Bill) -> Self {
        Self::whole(status, "application/json", body.to_string().into_bytes(), bill)
    }

    /// Adds a header.
    #[must_use]
    pub(crate) fn with_header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

/// Builds a streamed body frame by frame.
#[derive(Default)]
pub(crate) struct StreamBody {
    bytes: Vec<u8>,
    cuts: Vec<Cut>,
    tokens: u64,
}

impl StreamBody {
    /// Room for about this many frames of ordinary size.
    pub(crate) fn with_frames(frames: usize) -> Self {
        Self { bytes: Vec::with_capacity(frames * 200), cuts: Vec::with_capacity(frames), tokens: 0 }
    }

    /// One frame, written by `write`, carrying `tokens` output tokens.
    pub(crate) fn frame(&mut self, tokens: u64, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.tokens += tokens;
        self.cuts.push(Cut { end: self.bytes.len(), tokens: self.tokens });
    }

    /// One SSE event with JSON data.
    pub(crate) fn event(&mut self, name: Option<&str>, data: &serde_json::Value, tokens: u64) {
        self.frame(tokens, |out| {
            if let Some(name) = name {
                put(out, format_args!("event: {name}\n"));
            }
            put(out, format_args!("data: {data}\n\n"));
        });
    }

    /// The finished answer.
    pub(crate) fn finish(self, content_type: &str, bill: Bill) -> Answer {
        Answer {
            status: 200,
            content_type: content_type.to_owned(),
            headers: Vec::new(),
            body: self.bytes.into(),
            cuts: self.cuts,
            chunked: true,
            bill,
        }
    }
}

/// Formats into a vector. Writing to memory cannot fail.
pub(crate) fn put(out: &mut Vec<u8>, arguments: std::fmt::Arguments<'_>) {
    let _written = out.write_fmt(arguments);
}
