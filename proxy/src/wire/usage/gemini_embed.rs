//! Google's embeddings: `:embedContent`, `:batchEmbedContents`, and the
//! statistics of Vertex's `:predict`.

use clawgate_shared::usage::Usage;

use super::super::json::{Scanner, Step};
use super::count::{count, object_or_skip, sum};
use super::outcome::Said;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GeminiEmbed {
    input: Option<u64>,
}

impl GeminiEmbed {
    pub(super) fn walk(&mut self, scanner: &mut Scanner<'_>, said: &mut Said) -> Step {
        object_or_skip(scanner, |scanner, name| match name {
            b"usageMetadata" => member(scanner, b"promptTokenCount", |scanner| {
                self.input = count(scanner)?.or(self.input);
                Ok(())
            }),
            b"predictions" if scanner.next() == Some(b'[') => {
                let mut all = None;
                scanner.array(|scanner| {
                    member(scanner, b"embeddings", |scanner| {
                        member(scanner, b"statistics", |scanner| {
                            member(scanner, b"token_count", |scanner| {
                                all = sum(all, count(scanner)?);
                                Ok(())
                            })
                        })
                    })
                })?;
                self.input = all.or(self.input);
                Ok(())
            }
            _ => said.other(scanner, name),
        })
        .map(drop)
    }

    pub(super) fn usage(&self) -> Usage {
        Usage { input: self.input, output: self.input.map(|_| 0), ..Usage::default() }
    }
}

/// Reads one member of an object and passes over the others.
fn member(scanner: &mut Scanner<'_>, wanted: &[u8], mut read: impl FnMut(&mut Scanner<'_>) -> Step) -> Step {
    object_or_skip(scanner, |scanner, name| if name == wanted { read(scanner) } else { scanner.skip().map(drop) })
        .map(drop)
}
