//! The rules of the house hold, and each checker fails on a bad sample.

use clawgate_tests::architecture::{
    Source, Violation, arrows, assert_none, fences, layout, ratchet,
    source::{rust_files, tracked},
    words,
};
use clawgate_tests::config::root;

/// Files over the limit when the rule came. May only shrink.
const FILE_DEBT: ratchet::Debt<'_> = &[];
/// Functions over the limit when the rule came. May only shrink.
const FUNCTION_DEBT: ratchet::Debt<'_> = &[];
/// Files that may say `unsafe`, each with its reason beside the block.
const UNSAFE: &[&str] = &["proxy/src/metering/spool/tail.rs"];

fn one(violations: &[Violation], needle: &str) {
    assert!(violations.iter().any(|v| v.0.contains(needle)), "expected {needle:?} in {violations:?}");
}

#[test]
fn modules_of_the_data_plane_import_only_what_stands_above_them() {
    assert_none("module order", &arrows::module_order(&rust_files()));
}

#[test]
fn module_order_fails_on_bad_samples() {
    let down = Source::new("proxy/src/wire/peek.rs", "use crate::{limits::Bucket, wire::sse};");
    one(&arrows::module_order(&[down]), "peek.rs:1: `wire` imports `limits`");
    let path = Source::new("proxy/src/quota/lease.rs", "fn f() {\n crate::server::run();\n}");
    one(&arrows::module_order(&[path]), "lease.rs:2: `quota` imports `server`");
    let inside_macro =
        Source::new("proxy/src/limits/mod.rs", "fn f() { tokio::select! { _ = crate::app::x() => {} } }");
    one(&arrows::module_order(&[inside_macro]), "imports `app`");
    let unknown = Source::new("proxy/src/helpers/mod.rs", "");
    one(&arrows::module_order(&[unknown]), "not in the list");
    let fine = Source::new("proxy/src/server/mod.rs", "// crate::app\nuse crate::{exchange::{run, record}, wire};");
    assert_none("a fine file", &arrows::module_order(&[fine]));
}

#[test]
fn crates_depend_only_along_the_arrows() {
    let manifests: Vec<Source> = tracked().into_iter().filter(|f| f.path.ends_with("Cargo.toml")).collect();
    assert!(manifests.len() > 5, "found {} manifests", manifests.len());
    assert_none("crate arrows", &arrows::crates(&manifests));
}

#[test]
fn crate_arrows_fail_on_bad_samples() {
    let bad = Source::new(
        "proxy/Cargo.toml",
        "[package]\nname='clawgate-proxy'\n[target.'cfg(unix)'.dev-dependencies]\nclawgate-control.workspace=true",
    );
    one(&arrows::crates(&[bad]), "clawgate-proxy must not depend on clawgate-control");
    let mock =
        Source::new("x/Cargo.toml", "[package]\nname='clawgate-mock'\n[dependencies]\nclawgate-shared={path='s'}");
    one(&arrows::crates(&[mock]), "clawgate-mock must not depend on clawgate-shared");
}

#[test]
fn libraries_stay_inside_their_fences() {
    assert_none("library fences", &fences::libraries(&rust_files()));
}

#[test]
fn library_fences_fail_on_bad_samples() {
    for (path, text) in [
        ("proxy/src/exchange/mod.rs", "use pingora_core::protocols::Digest;"),
        ("control/src/domain/bots.rs", "fn f(pool: &sqlx::AnyPool) {}"),
        ("control/src/store/db.rs", "use axum::Router;"),
        ("proxy/src/quota/lease.rs", "use tonic::Status;"),
        ("cli/src/main.rs", "use bollard::Docker;"),
    ] {
        assert_eq!(fences::libraries(&[Source::new(path, text)]).len(), 1, "{path}");
    }
    let fine = Source::new("control/src/domain/mod.rs", "//! no sqlx here\nconst X: &str = \"axum::Router\";");
    assert_none("a fine file", &fences::libraries(&[fine]));
}

#[test]
fn no_unsafe_no_env_no_clock_where_they_do_not_belong() {
    assert_none("unsafe, environment, clocks", &fences::sources_of_surprise(&rust_files(), UNSAFE));
}

#[test]
fn surprises_fail_on_bad_samples() {
    let check = |path: &str, text: &str| fences::sources_of_surprise(&[Source::new(path, text)], UNSAFE);
    one(&check("tests/src/a.rs", "fn f() { unsafe { g() } }"), "unsafe");
    one(&check("proxy/src/app.rs", "fn f() { let _ = std::env::var_os(\"X\"); }"), "std::env");
    one(&check("control/src/jobs/mod.rs", "fn f() { SystemTime::now(); }"), "wall clock");
    assert_none("a config", &check("proxy/src/config.rs", "fn f() { let _ = std::env::vars(); }"));
}

#[test]
fn the_lock_file_has_one_tls_and_no_foreign_crypto() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).expect("lock file");
    assert_none("lock file", &fences::lock(&lock));
    one(&fences::lock("[[package]]\nname = \"openssl-sys\"\n"), "openssl-sys");
    one(&fences::lock("name = \"aws-lc-sys\""), "aws-lc-sys");
    assert_none("a prefix is no match", &fences::lock("name = \"openssl-probe\""));
}

#[test]
fn files_and_functions_are_small() {
    let files = rust_files();
    assert_none("file size", &ratchet::files(&files, FILE_DEBT));
    assert_none("function size", &ratchet::functions(&files, FUNCTION_DEBT));
}

#[test]
fn sizes_fail_on_bad_samples() {
    let long = Source::new("a/src/a.rs", &"// x\n".repeat(601));
    one(&ratchet::files(std::slice::from_ref(&long), &[]), "601 lines");
    assert_none("owed", &ratchet::files(std::slice::from_ref(&long), &[("a/src/a.rs", 601)]));
    one(&ratchet::files(std::slice::from_ref(&long), &[("a/src/a.rs", 600)]), "grew");
    let short = Source::new("a/src/b.rs", "fn f() {}");
    one(&ratchet::files(std::slice::from_ref(&short), &[("a/src/b.rs", 700)]), "take it off");
    one(&ratchet::files(&[short], &[("a/src/c.rs", 700)]), "is gone");
    let body = format!("impl T {{\n    fn f(\n        a: u8,\n    ) {{\n{}    }}\n}}", "        g();\n".repeat(67));
    one(&ratchet::functions(&[Source::new("a/src/d.rs", &body)], &[]), "d.rs::f: 71 lines");
    let body = body.replacen("        g();\n", "", 1);
    assert_none("70 lines", &ratchet::functions(&[Source::new("a/src/d.rs", &body)], &[]));
}

#[test]
fn every_folder_says_what_it_is_for() {
    assert_none("folder docs", &layout::folder_docs(&rust_files()));
    one(&layout::folder_docs(&[Source::new("a/src/b/c.rs", "//! c")]), "a/src/b: has no mod.rs");
    one(&layout::folder_docs(&[Source::new("a/src/b/mod.rs", "mod c;\n//! late")]), "does not begin");
}

#[test]
fn migrations_come_in_pairs() {
    let files = tracked();
    let paths: Vec<&str> = files.iter().map(|f| f.path.as_str()).collect();
    assert!(paths.iter().any(|p| p.starts_with("migrations/")), "no migrations are tracked");
    assert_none("migrations", &layout::migrations(&paths));
    one(&layout::migrations(&["migrations/sqlite/0001_a.sql"]), "0001_a.sql: in one of the two");
    let gap = ["migrations/sqlite/0002_a.sql", "migrations/postgres/0002_a.sql"];
    one(&layout::migrations(&gap), "should have number 1");
}

#[test]
fn nothing_is_left_open() {
    assert_none("stubs", &words::stubs(&rust_files()));
    let bad = ["fn f() { to", "do!() }\n#[ignore]\nfn g() {} // FIX", "ME"].concat();
    assert_eq!(words::stubs(&[Source::new("a/src/a.rs", &bad)]).len(), 3);
}

#[test]
fn no_file_names_a_machine_or_a_package_host() {
    assert_none("places", &words::places(&tracked()));
    for parts in [["see /wo", "rk/main/x"], ["https://py", "pi.org"], ["fixes issue", " #7"], ["as in Issue", " 12"]] {
        let sample = Source::new("docs/a.md", &parts.concat());
        assert_eq!(words::places(&[sample]).len(), 1, "{parts:?}");
    }
    assert_none("plain words", &words::places(&[Source::new("a.md", "issue tokens; tissue 3; issues 3")]));
}
