//! Prices from several places, in the order in which they count.

use std::collections::HashMap;

use super::book::{Book, Entry};
use super::builtin;

/// Where a price in effect comes from, the first that counts first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Set by hand for one tenant.
    Tenant,
    /// Set by hand for everybody.
    Platform,
    /// A price file.
    Import,
    /// The list of this release.
    Builtin,
}

impl Source {
    const ALL: [Self; 4] = [Self::Tenant, Self::Platform, Self::Import, Self::Builtin];

    /// `tenant | platform | import | builtin`
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Platform => "platform",
            Self::Import => "import",
            Self::Builtin => "builtin",
        }
    }

    /// The inverse of [`Self::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.as_str() == text)
    }
}

/// Prices of every source; the built-in list is always among them.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    tenants: HashMap<String, Book>,
    platform: Book,
    imported: Book,
}

impl Sources {
    /// Adds a price, in the order in which they were set. `tenant_id` counts for
    /// [`Source::Tenant`] only; the built-in list takes none.
    pub fn add(&mut self, source: Source, tenant_id: &str, vendor: &str, model: &str, entry: Entry) {
        let book = match source {
            Source::Tenant => self.tenants.entry(tenant_id.to_owned()).or_default(),
            Source::Platform => &mut self.platform,
            Source::Import => &mut self.imported,
            Source::Builtin => return,
        };
        book.add(vendor, model, entry);
    }

    /// The books that count for a tenant, in their order.
    pub fn of(&self, tenant_id: &str) -> impl Iterator<Item = (Source, &Book)> {
        let own = self.tenants.get(tenant_id).map(|book| (Source::Tenant, book));
        own.into_iter().chain([
            (Source::Platform, &self.platform),
            (Source::Import, &self.imported),
            (Source::Builtin, builtin::book()),
        ])
    }

    /// The price of a model at a time, for a tenant; `names` as
    /// [`super::candidates`] gives them.
    #[must_use]
    pub fn find(&self, tenant_id: &str, vendor: &str, names: &[String], at: i64) -> Option<(Source, &Entry)> {
        self.of(tenant_id).find_map(|(source, book)| Some((source, book.find(vendor, names, at)?)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::pricing::{Price, candidates};

    #[test]
    fn the_first_source_that_knows_a_model_counts() {
        let mut sources = Sources::default();
        let find = |sources: &Sources, tenant: &str, at| {
            let names = candidates("openai", "gpt-4o");
            sources.find(tenant, "openai", &names, at).map(|(source, _)| source)
        };
        assert_eq!(find(&sources, "t1", 0), Some(Source::Builtin));
        for (source, from) in [(Source::Import, 100), (Source::Platform, 200), (Source::Tenant, 300)] {
            let entry = Entry { from, until: i64::MAX, reference: Arc::from("x"), price: Arc::new(Price::default()) };
            sources.add(source, "t1", "openai", "gpt-4o", entry);
        }
        let found: Vec<_> = [99, 100, 200, 300].into_iter().map(|at| find(&sources, "t1", at)).collect();
        let wanted = [Source::Builtin, Source::Import, Source::Platform, Source::Tenant];
        assert_eq!(found, wanted.map(Some));
        assert_eq!(find(&sources, "t2", 300), Some(Source::Platform));
        assert!(wanted.into_iter().all(|source| Source::parse(source.as_str()) == Some(source)));
    }
}
