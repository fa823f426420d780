//! Lists: `?limit=&after=` in, `{data, has_more, next_cursor, total}` out.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::problem::{FieldProblem, Problem};
use crate::store::page::{self, PageError, Paged};

/// Which page.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// Rows, 1 to 200; 50 unless given.
    #[param(minimum = 1, maximum = 200)]
    pub limit: Option<u32>,
    /// The `next_cursor` of the page before.
    pub after: Option<String>,
}

impl PageQuery {
    /// As the store wants it.
    ///
    /// # Errors
    /// See [`wanted`].
    pub fn wanted(&self) -> Result<page::Page, Problem> {
        wanted(self.limit, self.after.as_deref())
    }
}

/// As the store wants it.
///
/// # Errors
/// A limit out of range or a foreign cursor.
pub fn wanted(limit: Option<u32>, after: Option<&str>) -> Result<page::Page, Problem> {
    page::Page::new(limit, after).map_err(|error| {
        let (field, rule) = match error {
            PageError::Limit => ("limit", "range"),
            PageError::After => ("after", "format"),
        };
        Problem::bad_parameter(FieldProblem::new(field, rule).saying(error.to_string()))
    })
}

/// A page.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The rows.
    pub data: Vec<T>,
    /// Whether there is a next page.
    pub has_more: bool,
    /// What to send as `after` for it.
    pub next_cursor: Option<String>,
    /// How many rows there are in all; null for logs.
    pub total: Option<u64>,
}

impl<T> Page<T> {
    /// A page of rows as a page of views.
    #[must_use]
    pub fn of<R>(paged: Paged<R>, view: impl FnMut(R) -> T) -> Self {
        Self {
            data: paged.rows.into_iter().map(view).collect(),
            has_more: paged.has_more,
            next_cursor: paged.next_cursor,
            total: paged.total,
        }
    }

    /// A whole list that has no pages.
    #[must_use]
    pub fn whole(data: Vec<T>) -> Self {
        let total = u64::try_from(data.len()).ok();
        Self { data, has_more: false, next_cursor: None, total }
    }
}
