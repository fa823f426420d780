//! Lays the public vocabularies out so that the node reads them where they lie
//! in its file: nothing is loaded, nothing is copied.

// A build script may say why it cannot go on.
#![allow(clippy::expect_used)]

use std::path::Path;

use tiktoken_rs::CoreBPE;

#[path = "src/wire/tokens/layout.rs"]
mod layout;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/wire/tokens/layout.rs");
    // The numbers behind are special tokens, which no text has.
    write("o200k", &tiktoken_rs::o200k_base().expect("bundled"), 199_998);
    write("cl100k", &tiktoken_rs::cl100k_base().expect("bundled"), 100_256);
}

fn write(name: &str, vocabulary: &CoreBPE, ranks: u32) {
    let tokens: Vec<Vec<u8>> =
        (0..ranks).map(|rank| vocabulary.decode_bytes(&[rank]).expect("ranks have no gap")).collect();
    #[allow(clippy::disallowed_methods, reason = "how a build script is told where to write")]
    let out = std::env::var_os("OUT_DIR").expect("set for build scripts");
    std::fs::write(Path::new(&out).join(name).with_extension("vocabulary"), layout::lay_out(&tokens))
        .expect("writable");
}
