//! Lays out the vocabularies for the module under test, as the node's own build
//! script does.

use std::path::Path;

use tiktoken_rs::CoreBPE;

#[path = "../proxy/src/wire/tokens/layout.rs"]
mod layout;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../proxy/src/wire/tokens/layout.rs");
    write("o200k", &tiktoken_rs::o200k_base().expect("bundled"), 199_998);
    write("cl100k", &tiktoken_rs::cl100k_base().expect("bundled"), 100_256);
}

fn write(name: &str, vocabulary: &CoreBPE, ranks: u32) {
    let tokens: Vec<Vec<u8>> =
        (0..ranks).map(|rank| vocabulary.decode_bytes(&[rank]).expect("ranks have no gap")).collect();
    let out = std::env::var_os("OUT_DIR").expect("set for build scripts");
    let path = Path::new(&out).join(name).with_extension("vocabulary");
    std::fs::write(path, layout::lay_out(&tokens)).expect("writable");
}
