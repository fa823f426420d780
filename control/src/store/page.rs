//! Cursor pagination over ids, which sort by creation.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Rows per page unless asked for.
pub const DEFAULT_LIMIT: u32 = 50;
/// Most rows per page.
pub const MAX_LIMIT: u32 = 200;

/// What part of a list is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    after: String,
    limit: u32,
}

/// Why a page cannot be asked for; names the parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// Not 1–200.
    #[error("limit must be from 1 to {MAX_LIMIT}")]
    Limit,
    /// Not a cursor of ours.
    #[error("after must be a next_cursor of this list")]
    After,
}

/// One page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paged<T> {
    /// The rows, oldest first unless the list says otherwise.
    pub rows: Vec<T>,
    /// Whether there are more.
    pub has_more: bool,
    /// What to give as `after` for the next page; `None` at the end.
    pub next_cursor: Option<String>,
    /// How many rows all pages have together; `None` for logs.
    pub total: Option<u64>,
}

impl Page {
    /// From the query parameters.
    ///
    /// # Errors
    /// See [`PageError`].
    pub fn new(limit: Option<u32>, after: Option<&str>) -> Result<Self, PageError> {
        let limit = limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(PageError::Limit);
        }
        let after = match after {
            None | Some("") => String::new(),
            Some(cursor) => decode(cursor).ok_or(PageError::After)?,
        };
        Ok(Self { after, limit })
    }

    /// The key after which rows are wanted; empty: from the beginning.
    #[must_use]
    pub fn after(&self) -> &str {
        &self.after
    }

    /// What goes to `LIMIT`: one more than wanted, to know whether more follow.
    #[must_use]
    pub fn fetch(&self) -> i64 {
        i64::from(self.limit) + 1
    }

    /// Cuts what [`Self::fetch`] brought to a page.
    #[must_use]
    pub fn cut<T>(&self, mut rows: Vec<T>, total: Option<u64>, key: impl Fn(&T) -> &str) -> Paged<T> {
        let limit = self.limit as usize;
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        let next_cursor = rows.last().filter(|_| has_more).map(|row| encode(key(row)));
        Paged { rows, has_more, next_cursor, total }
    }
}

impl Default for Page {
    fn default() -> Self {
        Self { after: String::new(), limit: DEFAULT_LIMIT }
    }
}

/// A cursor from the key of the last row.
#[must_use]
pub fn encode(key: &str) -> String {
    URL_SAFE_NO_PAD.encode(key)
}

/// The key in a cursor; `None` for a text that is no cursor.
#[must_use]
pub fn decode(cursor: &str) -> Option<String> {
    if cursor.len() > 512 {
        return None;
    }
    String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok().filter(|key| !key.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_knows_whether_more_follow() {
        let page = Page::new(Some(2), None).expect("valid");
        let paged = page.cut(vec!["a", "b", "c"], Some(3), |row| row);
        assert_eq!((paged.rows.len(), paged.has_more), (2, true));
        let next = Page::new(Some(2), paged.next_cursor.as_deref()).expect("valid");
        assert_eq!(next.after(), "b");
        assert_eq!(next.cut(vec!["c"], Some(3), |row| row).next_cursor, None);
        assert_eq!(Page::new(Some(0), None), Err(PageError::Limit));
        assert_eq!(Page::new(None, Some("%%")), Err(PageError::After));
    }
}
