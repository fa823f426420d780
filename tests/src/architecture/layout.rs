//! Folders that say what they are for, and migrations that come in pairs.

use std::collections::{BTreeMap, BTreeSet};

use super::{Source, Violation};

/// Folders of a crate's `src` whose root (`mod.rs`, the file of the same name
/// beside the folder, or the crate root) does not begin with a `//!` doc, or is
/// not there.
#[must_use]
pub fn folder_docs(files: &[Source]) -> Vec<Violation> {
    let mut roots: BTreeMap<&str, Option<&Source>> = BTreeMap::new();
    for file in files.iter().filter(|f| f.path.contains("/src/")) {
        let Some((folder, name)) = file.path.rsplit_once('/') else { continue };
        let entry = roots.entry(folder).or_default();
        if matches!(name, "mod.rs" | "lib.rs") || (name == "main.rs" && entry.is_none()) {
            *entry = Some(file);
        }
    }
    let mut violations = Vec::new();
    for (folder, root) in roots.into_iter().filter(|(folder, _)| !folder.ends_with("/src/bin")) {
        match root {
            None => match files.iter().find(|f| f.path == format!("{folder}.rs")) {
                Some(beside) if beside.text.trim_start().starts_with("//!") => {}
                Some(beside) => violations.push(undocumented(beside)),
                None => violations.push(Violation(format!("{folder}: has no mod.rs"))),
            },
            Some(file) if !file.text.trim_start().starts_with("//!") => {
                violations.push(undocumented(file));
            }
            Some(_) => {}
        }
    }
    violations
}

fn undocumented(file: &Source) -> Violation {
    Violation(format!("{}: does not begin with its //! doc", file.path))
}

/// Migrations that are in one folder only, or whose numbers have a gap.
#[must_use]
pub fn migrations(paths: &[&str]) -> Vec<Violation> {
    let names = |engine: &str| -> BTreeSet<&str> {
        paths.iter().filter_map(|p| p.strip_prefix(&format!("migrations/{engine}/"))).collect()
    };
    let (sqlite, postgres) = (names("sqlite"), names("postgres"));
    let mut violations: Vec<Violation> = sqlite
        .symmetric_difference(&postgres)
        .map(|name| Violation(format!("migrations/*/{name}: in one of the two folders only")))
        .collect();
    for (expected, name) in (1_usize..).zip(&sqlite) {
        let number = name.split('_').next().and_then(|n| n.parse::<usize>().ok());
        if number != Some(expected) {
            violations.push(Violation(format!("migrations/sqlite/{name}: should have number {expected}")));
        }
    }
    violations
}
