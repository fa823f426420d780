//! Bearer secrets that we mint: bot tokens (`cgb_`), API tokens (`cga_`) and
//! the secret part of enrolment tokens (`cge_`).
//!
//! Form: prefix, 43 characters base64url of 32 random bytes, 6 characters of
//! checksum. The checksum lets a secret scanner, and our own refusal message,
//! tell a mistyped token from a foreign one; it is no protection. What is
//! stored is the SHA-256 of the whole text: 256 random bits need no slow hash.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Which kind of bearer a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// What a bot presents to the data plane: `cgb_`.
    Bot,
    /// What an admin's script presents to the REST API: `cga_`.
    Api,
    /// What a new node presents once: `cge_`.
    Enroll,
}

impl TokenKind {
    /// The prefix of the text form.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Bot => "cgb_",
            Self::Api => "cga_",
            Self::Enroll => "cge_",
        }
    }
}

const SECRET_CHARS: usize = 43;
const CHECK_CHARS: usize = 6;

/// SHA-256 of a token's whole text: the only form that is stored or sent.
pub type TokenHash = [u8; 32];

/// Mints a new token from the system's random source.
///
/// # Errors
/// The system gave no random bytes.
pub fn mint(kind: TokenKind) -> Result<Zeroizing<String>, getrandom::Error> {
    let mut raw = Zeroizing::new([0u8; 32]);
    getrandom::fill(raw.as_mut())?;
    let mut text = Zeroizing::new(String::with_capacity(4 + SECRET_CHARS + CHECK_CHARS));
    text.push_str(kind.prefix());
    URL_SAFE_NO_PAD.encode_string(raw.as_ref(), &mut text);
    let check = checksum(&text);
    text.push_str(&check);
    Ok(text)
}

/// The hash under which a presented token is looked up.
#[must_use]
pub fn hash(text: &[u8]) -> TokenHash {
    Sha256::digest(text).into()
}

/// Whether `text` is a token of `kind` without a typing error. Says nothing
/// about whether it is known.
#[must_use]
pub fn well_formed(kind: TokenKind, text: &str) -> bool {
    let body = text.len().checked_sub(CHECK_CHARS).and_then(|at| text.split_at_checked(at));
    let Some((head, check)) = body else { return false };
    head.strip_prefix(kind.prefix()).is_some_and(|secret| secret.len() == SECRET_CHARS) && checksum(head) == check
}

/// What bearer secrets begin with: ours anywhere, vendors' keys at the beginning
/// of a word (a model may well be called `flask-1`).
const MARKS: [(&str, bool); 7] =
    [("cgb_", true), ("cga_", true), ("cge1_", true), ("cge_", true), ("sk-", false), ("AIza", false), ("gsk_", false)];

/// `text` fit for logs and rows: whatever looks like a credential that somebody
/// pasted into a path, a model's name or an id is cut to what it begins with.
#[must_use]
pub fn masked(text: &str) -> Cow<'_, str> {
    let Some((mut at, mut mark)) = next_mark(text, 0) else { return Cow::Borrowed(text) };
    let (mut out, mut done) = (String::with_capacity(text.len()), 0);
    loop {
        let secret = text.get(at + mark.len()..).unwrap_or_default();
        out.push_str(text.get(done..at).unwrap_or_default());
        out.push_str(mark);
        out.push_str("***");
        let rest = secret.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        done = text.len() - rest.len();
        match next_mark(text, done) {
            Some(next) => (at, mark) = next,
            None => break,
        }
    }
    out.push_str(text.get(done..).unwrap_or_default());
    Cow::Owned(out)
}

/// The first mark at or after `from`.
fn next_mark(text: &str, from: usize) -> Option<(usize, &'static str)> {
    let bytes = text.as_bytes();
    (from..bytes.len()).find_map(|at| {
        let rest = bytes.get(at..).filter(|rest| matches!(rest.first(), Some(b'c' | b's' | b'A' | b'g')))?;
        let found = MARKS.iter().find(|(mark, _)| rest.starts_with(mark.as_bytes()));
        found.filter(|(_, anywhere)| *anywhere || begins_word(bytes, at)).map(|(mark, _)| (at, *mark))
    })
}

/// Whether no letter or digit stands before `at`, but those of a percent escape.
fn begins_word(bytes: &[u8], at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|before| bytes.get(before));
    let escape = at.checked_sub(3).and_then(|start| bytes.get(start)) == Some(&b'%');
    escape || before.is_none_or(|byte| !byte.is_ascii_alphanumeric())
}

fn checksum(head: &str) -> String {
    let digest = Sha256::digest(head.as_bytes());
    let mut text = URL_SAFE_NO_PAD.encode(digest);
    text.truncate(CHECK_CHARS);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minted_token_is_well_formed_and_only_of_its_kind() {
        let token = mint(TokenKind::Bot).expect("random bytes");
        assert_eq!(token.len(), 53);
        assert!(well_formed(TokenKind::Bot, &token));
        assert!(!well_formed(TokenKind::Api, &token));
    }

    #[test]
    fn what_looks_like_a_credential_is_masked() {
        for (text, wanted) in [
            ("/v1/openai/chat/completions", "/v1/openai/chat/completions"),
            ("/v1/openai/cgb_aB-c_9/x", "/v1/openai/cgb_***/x"),
            ("cgb_a/cgb_b", "cgb_***/cgb_***"),
            ("xcga_1", "xcga_***"),
            ("cge1_eyJ0", "cge1_***"),
            ("cgb_", "cgb_***"),
            ("/v1/sk-proj-1", "/v1/sk-***"),
            ("Bearer%20sk-ant-api03_x y", "Bearer%20sk-*** y"),
            ("models/AIzaSyD-1?", "models/AIza***?"),
            ("gsk_1", "gsk_***"),
            ("flask-1/task-list", "flask-1/task-list"),
            ("\u{e9}sk-1\u{e9}", "\u{e9}sk-***\u{e9}"),
            ("", ""),
        ] {
            assert_eq!(masked(text), wanted, "{text}");
        }
        let token = mint(TokenKind::Api).expect("random bytes");
        assert_eq!(masked(&format!("a {} b", *token)), "a cga_*** b");
    }

    #[test]
    fn a_mistyped_token_is_not_well_formed() {
        let token = mint(TokenKind::Bot).expect("random bytes");
        let mut other = token.to_string();
        other.replace_range(10..11, if &token[10..11] == "A" { "B" } else { "A" });
        assert!(!well_formed(TokenKind::Bot, &other));
        for bad in ["", "cgb_", "cgb_é", &token[..52]] {
            assert!(!well_formed(TokenKind::Bot, bad), "{bad}");
        }
    }
}
