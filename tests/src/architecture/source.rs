//! Sources as the checkers see them: tracked files, and Rust files as flat
//! token lists, so that comments and strings never trip a rule.

use std::path::Path;
use std::process::Command;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::config::root;

/// One text file of the repository.
#[derive(Clone, Debug)]
pub struct Source {
    /// Relative to the workspace root, with `/`.
    pub path: String,
    /// Its text.
    pub text: String,
}

impl Source {
    /// For samples.
    #[must_use]
    pub fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// Whether this is Rust.
    #[must_use]
    pub fn is_rust(&self) -> bool {
        Path::new(&self.path).extension().is_some_and(|e| e == "rs")
    }

    /// Its tokens.
    ///
    /// # Panics
    /// The text is not Rust.
    #[must_use]
    pub fn tokens(&self) -> Tokens {
        let stream: TokenStream =
            self.text.parse().unwrap_or_else(|error| panic!("{} is not Rust: {error}", self.path));
        let mut tokens = Tokens(Vec::new());
        flatten(stream, &mut tokens.0);
        tokens
    }
}

/// A token's text and its line.
#[derive(Clone, Debug)]
pub struct Token {
    /// Identifiers and punctuation as written; delimiters one by one; literals
    /// as an empty text.
    pub text: String,
    /// From 1.
    pub line: usize,
}

/// A file without its nesting.
#[derive(Clone, Debug)]
pub struct Tokens(pub Vec<Token>);

impl Tokens {
    /// Lines at which `pattern` occurs in sequence.
    #[must_use]
    pub fn find(&self, pattern: &[&str]) -> Vec<usize> {
        self.0
            .windows(pattern.len())
            .filter(|window| window.iter().zip(pattern).all(|(token, want)| token.text == *want))
            .map(|window| window[0].line)
            .collect()
    }

    /// Lines and names of identifiers that satisfy `wanted`.
    pub fn identifiers(&self, wanted: impl Fn(&str) -> bool) -> Vec<(usize, String)> {
        self.0.iter().filter(|t| wanted(&t.text)).map(|t| (t.line, t.text.clone())).collect()
    }

    /// Every `crate::X`, also inside a group `crate::{X, Y::Z}`: line and X.
    #[must_use]
    pub fn crate_modules(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (at, _) in self.0.iter().enumerate().filter(|(_, t)| t.text == "crate") {
            let text = |offset: usize| self.0.get(at + offset).map_or("", |t| t.text.as_str());
            if text(1) != ":" || text(2) != ":" {
                continue;
            }
            if text(3) == "{" {
                found.extend(self.group_heads(at + 3));
            } else if let Some(token) = self.0.get(at + 3) {
                found.push((token.line, token.text.clone()));
            }
        }
        found
    }

    /// First identifiers of the members of the group that opens at `open`.
    fn group_heads(&self, open: usize) -> Vec<(usize, String)> {
        let (mut depth, mut head, mut found) = (0_usize, true, Vec::new());
        for token in self.0.iter().skip(open) {
            match token.text.as_str() {
                "{" => {
                    depth += 1;
                    head = depth == 1;
                }
                "}" => {
                    depth -= 1;
                    if depth == 0 {
                        break;
                    }
                }
                "," if depth == 1 => head = true,
                name if head => {
                    found.push((token.line, name.to_owned()));
                    head = false;
                }
                _ => {}
            }
        }
        found
    }
}

fn flatten(stream: TokenStream, into: &mut Vec<Token>) {
    for tree in stream {
        let line = tree.span().start().line;
        match tree {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                into.push(Token { text: open.to_owned(), line });
                flatten(group.stream(), into);
                into.push(Token { text: close.to_owned(), line: group.span_close().start().line });
            }
            TokenTree::Ident(ident) => into.push(Token { text: ident.to_string(), line }),
            TokenTree::Punct(punct) => into.push(Token { text: punct.as_char().to_string(), line }),
            TokenTree::Literal(_) => into.push(Token { text: String::new(), line }),
        }
    }
}

/// Every tracked text file of the repository that is still there.
///
/// # Panics
/// Git cannot list them.
#[must_use]
pub fn tracked() -> Vec<Source> {
    let root = root();
    let listing = Command::new("git").arg("-C").arg(&root).args(["ls-files", "-z"]).output();
    let listing = listing.expect("git is installed");
    assert!(listing.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listing.stderr));
    let names = String::from_utf8(listing.stdout).expect("file names are UTF-8");
    names
        .split('\0')
        .filter(|name| !name.is_empty())
        .filter_map(|name| {
            let text = std::fs::read_to_string(root.join(name)).ok()?;
            Some(Source { path: name.to_owned(), text })
        })
        .collect()
}

/// Every tracked Rust file.
#[must_use]
pub fn rust_files() -> Vec<Source> {
    tracked().into_iter().filter(Source::is_rust).collect()
}
