//! Rows into values, with the column's name in every error.

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::error::StoreError;

/// Typed access to a row by column name.
pub trait RowExt {
    /// A text that is not null.
    ///
    /// # Errors
    /// No such column, null, or another type; so for all of these.
    fn text(&self, column: &str) -> Result<String, StoreError>;
    /// A text or null.
    ///
    /// # Errors
    /// See [`RowExt::text`].
    fn opt_text(&self, column: &str) -> Result<Option<String>, StoreError>;
    /// An integer that is not null.
    ///
    /// # Errors
    /// See [`RowExt::text`].
    fn int(&self, column: &str) -> Result<i64, StoreError>;
    /// An integer or null.
    ///
    /// # Errors
    /// See [`RowExt::text`].
    fn opt_int(&self, column: &str) -> Result<Option<i64>, StoreError>;
    /// Bytes that are not null.
    ///
    /// # Errors
    /// See [`RowExt::text`].
    fn bytes(&self, column: &str) -> Result<Vec<u8>, StoreError>;
    /// Bytes or null.
    ///
    /// # Errors
    /// See [`RowExt::text`].
    fn opt_bytes(&self, column: &str) -> Result<Option<Vec<u8>>, StoreError>;
    /// An integer that may not be negative.
    ///
    /// # Errors
    /// See [`RowExt::text`]; also a negative number.
    fn uint(&self, column: &str) -> Result<u64, StoreError> {
        u64::try_from(self.int(column)?).map_err(|_| StoreError::corrupt(column, "negative"))
    }
    /// A non-negative integer or null.
    ///
    /// # Errors
    /// See [`RowExt::uint`].
    fn opt_uint(&self, column: &str) -> Result<Option<u64>, StoreError> {
        self.opt_int(column)?
            .map(|value| u64::try_from(value).map_err(|_| StoreError::corrupt(column, "negative")))
            .transpose()
    }
    /// A 0/1 integer.
    ///
    /// # Errors
    /// See [`RowExt::text`].
    fn flag(&self, column: &str) -> Result<bool, StoreError> {
        Ok(self.int(column)? != 0)
    }
    /// JSON in a text column.
    ///
    /// # Errors
    /// See [`RowExt::text`]; also JSON of another shape.
    fn json<T: DeserializeOwned>(&self, column: &str) -> Result<T, StoreError> {
        let text = self.text(column)?;
        serde_json::from_str(&text).map_err(|_| StoreError::corrupt(column, "JSON of another shape"))
    }
}

impl RowExt for AnyRow {
    fn text(&self, column: &str) -> Result<String, StoreError> {
        Ok(self.try_get::<String, _>(column)?)
    }

    fn opt_text(&self, column: &str) -> Result<Option<String>, StoreError> {
        Ok(self.try_get::<Option<String>, _>(column)?)
    }

    fn int(&self, column: &str) -> Result<i64, StoreError> {
        Ok(self.try_get::<i64, _>(column)?)
    }

    fn opt_int(&self, column: &str) -> Result<Option<i64>, StoreError> {
        Ok(self.try_get::<Option<i64>, _>(column)?)
    }

    fn bytes(&self, column: &str) -> Result<Vec<u8>, StoreError> {
        Ok(self.try_get::<Vec<u8>, _>(column)?)
    }

    fn opt_bytes(&self, column: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.try_get::<Option<Vec<u8>>, _>(column)?)
    }
}

/// A value as the text of a JSON column.
///
/// # Errors
/// A map whose keys are no strings; our types have none.
pub fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Internal(error.to_string()))
}

/// A count as the database holds it; beyond `i64` it saturates.
#[must_use]
pub fn to_int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Text from outside for a column: PostgreSQL takes no NUL character.
#[must_use]
pub fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
