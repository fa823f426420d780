//! Sizes that may only shrink.

use syn::spanned::Spanned;
use syn::visit::Visit;

use super::{Source, Violation};

/// A file has at most this many lines.
pub const FILE_LINES: usize = 600;
/// A function has at most this many lines, signature and braces included.
pub const FUNCTION_LINES: usize = 70;

/// Something over its limit that stood there when the rule came: its name and
/// its size then. It may shrink, never grow; once within the limit its entry
/// must go.
pub type Debt<'a> = &'a [(&'a str, usize)];

/// Files over [`FILE_LINES`].
#[must_use]
pub fn files(sources: &[Source], debt: Debt<'_>) -> Vec<Violation> {
    let sizes = sources.iter().map(|s| (s.path.clone(), s.text.lines().count())).collect();
    against(sizes, FILE_LINES, debt)
}

/// Functions over [`FUNCTION_LINES`], named `path::function`.
///
/// # Panics
/// A source is not Rust.
#[must_use]
pub fn functions(sources: &[Source], debt: Debt<'_>) -> Vec<Violation> {
    let mut sizes = Vec::new();
    for source in sources {
        let file = syn::parse_file(&source.text).unwrap_or_else(|error| panic!("{}: {error}", source.path));
        let mut visitor = Functions { path: &source.path, sizes: &mut sizes };
        visitor.visit_file(&file);
    }
    against(sizes, FUNCTION_LINES, debt)
}

fn against(sizes: Vec<(String, usize)>, limit: usize, debt: Debt<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (name, size) in &sizes {
        let owed = debt.iter().find(|(n, _)| n == name).map(|(_, size)| *size);
        match owed {
            None if *size > limit => {
                violations.push(Violation(format!("{name}: {size} lines, at most {limit}")));
            }
            Some(owed) if *size > owed => {
                violations.push(Violation(format!("{name}: grew from {owed} to {size} lines")));
            }
            Some(_) if *size <= limit => {
                violations.push(Violation(format!("{name}: within the limit now, take it off the list")));
            }
            _ => {}
        }
    }
    for (name, _) in debt.iter().filter(|(name, _)| !sizes.iter().any(|(n, _)| n == name)) {
        violations.push(Violation(format!("{name}: is gone, take it off the list")));
    }
    violations
}

struct Functions<'a> {
    path: &'a str,
    sizes: &'a mut Vec<(String, usize)>,
}

impl Functions<'_> {
    fn record(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let lines = block.span().end().line.saturating_sub(signature.span().start().line) + 1;
        self.sizes.push((format!("{}::{}", self.path, signature.ident), lines));
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.record(&item.sig, &item.block);
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.record(&item.sig, &item.block);
        syn::visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.record(&item.sig, block);
        }
        syn::visit::visit_trait_item_fn(self, item);
    }
}
