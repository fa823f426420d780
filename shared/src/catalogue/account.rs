//! What a route does to the things that stay in a vendor account, and which one
//! the path names.

/// Things in an account that one request may name, and one answer may have made:
/// more a node neither asks for nor tells, and more the control plane does not take.
pub const MAX_ACCOUNT_IDS: usize = 64;
/// Longest id that is one, in bytes; a longer one is nobody's.
pub const MAX_ACCOUNT_ID: usize = 256;

/// How a route speaks of things in a vendor account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// One of them is the segments `from..to` of the path below the root; a path
    /// with fewer is the collection, to which a `POST` or `PUT` adds one.
    Thing {
        /// The first segment of its name, counted from zero. With zero it is a
        /// resource name as Google writes them, and a verb behind a colon is no
        /// part of it.
        from: u8,
        /// Behind the last one.
        to: u8,
        /// The answer to a `POST` about a thing names another one that it made.
        makes: bool,
    },
    /// Every call makes one, and the answer names it.
    Makes,
    /// The query or the body names one.
    Elsewhere,
}

/// What one request does to the things in a vendor account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    /// Makes one; the answer names it.
    Make,
    /// Is about a whole collection: whatever anybody made there.
    List,
    /// Is about this one, or something below it.
    Use {
        /// As the answer that made it had it.
        id: String,
        /// The answer names another one that it made.
        makes: bool,
    },
    /// Is about one that the query or the body names.
    Elsewhere,
}

impl Touch {
    /// What a request does, by its method and the decoded segments of its path
    /// below the root.
    #[must_use]
    pub fn of<S: AsRef<str>>(self, method: &str, segments: &[S]) -> Account {
        let adds = matches!(method, "POST" | "PUT");
        let (from, to, makes) = match self {
            Self::Thing { from, to, makes } => (usize::from(from), usize::from(to), makes),
            Self::Makes if adds => return Account::Make,
            Self::Makes => return Account::List,
            Self::Elsewhere => return Account::Elsewhere,
        };
        let Some(parts) = segments.get(from..to) else {
            return if adds { Account::Make } else { Account::List };
        };
        let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
        let mut id = parts.join("/");
        if from == 0
            && let Some(colon) = id.rfind(':').filter(|colon| id.rfind('/').is_none_or(|slash| slash < *colon))
        {
            id.truncate(colon);
        }
        Account::Use { id, makes: makes && adds }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{find, resolve};
    use super::*;

    fn uses(id: &str) -> Account {
        Account::Use { id: id.to_owned(), makes: false }
    }

    #[test]
    fn routes_say_what_they_do_to_an_account() {
        let makes = |id: &str| Account::Use { id: id.to_owned(), makes: true };
        for (vendor, method, rest, want) in [
            ("openai", "POST", "files", Account::Make),
            ("openai", "GET", "v1/files", Account::List),
            ("openai", "HEAD", "files", Account::List),
            ("openai", "GET", "files/file-1", uses("file-1")),
            ("openai", "GET", "files//file%2D1/content", uses("file-1")),
            ("openai", "DELETE", "responses/resp_1", uses("resp_1")),
            ("openai", "POST", "responses/resp_1/cancel", uses("resp_1")),
            ("openai", "GET", "chat/completions", Account::List),
            ("openai", "GET", "chat/completions/chatcmpl-1/messages", uses("chatcmpl-1")),
            ("openai", "POST", "uploads/upload_1/complete", makes("upload_1")),
            ("openai", "POST", "uploads/upload_1/parts", uses("upload_1")),
            ("openai", "POST", "fine_tuning/jobs", Account::Make),
            ("openai", "GET", "fine_tuning/jobs", Account::List),
            ("openai", "GET", "fine_tuning/jobs/ftjob-1/events", uses("ftjob-1")),
            ("openai", "POST", "threads/runs", Account::Make),
            ("openai", "POST", "threads/thread_1/runs", uses("thread_1")),
            ("openai", "POST", "videos/video_1/remix", makes("video_1")),
            ("anthropic", "POST", "v1/messages/batches", Account::Make),
            ("anthropic", "GET", "v1/messages/batches/msgbatch_1/results", uses("msgbatch_1")),
            ("anthropic", "GET", "files", Account::List),
            ("google", "POST", "upload/v1beta/files", Account::Make),
            ("google", "GET", "v1beta/files/abc", uses("files/abc")),
            ("google", "GET", "files/abc:download", uses("files/abc")),
            ("google", "POST", "batches/b:cancel", uses("batches/b")),
            ("google", "PATCH", "cachedContents/c", uses("cachedContents/c")),
            ("google", "GET", "cachedContents", Account::List),
            ("google", "GET", "models/veo/operations/o", uses("models/veo/operations/o")),
            ("google", "POST", "models/veo:predictLongRunning", Account::Make),
            ("google", "GET", "interactions/v1_x", uses("v1_x")),
            ("mistral", "POST", "batch/jobs", Account::Make),
            ("mistral", "GET", "batch/jobs/j/x", uses("j")),
            ("perplexity", "GET", "async/chat/completions/r", uses("r")),
            ("doubao", "GET", "contents/generations/tasks/t", uses("t")),
            ("cohere", "GET", "v1/datasets/d", uses("d")),
            ("minimax", "GET", "query/video_generation", Account::Elsewhere),
            ("zhipu", "GET", "async-result/7", uses("7")),
            (
                "vertex",
                "GET",
                "v1/projects/p/locations/l/cachedContents/9",
                uses("projects/p/locations/l/cachedContents/9"),
            ),
        ] {
            let vendor = find(vendor).expect("built in");
            let found = resolve(vendor, method, rest).expect(rest);
            assert_eq!(found.account(method), Some(want), "{method} {rest}");
        }
        let openai = find("openai").expect("built in");
        assert_eq!(resolve(openai, "POST", "responses").expect("listed").account("POST"), None);
    }
}
