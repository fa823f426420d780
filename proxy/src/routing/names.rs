//! How a model's name finds its vendor: the bot's aliases, vendors before a
//! slash, and what is tried when the first place has nothing left. Pure.

use std::collections::HashMap;

/// Most further places of one chain.
pub const MAX_FALLBACKS: usize = 8;

/// The names that a bot's administrator has set.
#[derive(Clone, Debug, Default)]
pub struct Names {
    aliases: HashMap<String, String>,
    fallbacks: HashMap<String, Vec<String>>,
}

/// A model at a vendor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'n> {
    /// Its slug.
    pub vendor: &'n str,
    /// As the vendor knows it.
    pub model: &'n str,
}

/// How names are read on one route.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'n, K> {
    /// Whose a model is that says no vendor.
    pub home: &'n str,
    /// A client may name the vendor itself. Where it may not, a slash belongs to
    /// the model's own name.
    pub open: bool,
    /// Whether there is a vendor of that slug.
    pub knows: K,
}

impl<'n, K: Fn(&str) -> bool> Reading<'n, K> {
    /// A name whose vendor may stand before it.
    fn qualified(&self, name: &'n str) -> Place<'n> {
        qualified(name, &self.knows).unwrap_or(Place { vendor: self.home, model: name })
    }
}

/// A known vendor before the first slash, and the model behind it.
pub fn qualified(name: &str, knows: impl Fn(&str) -> bool) -> Option<Place<'_>> {
    let (vendor, model) = name.split_once('/')?;
    (!model.is_empty() && knows(vendor)).then_some(Place { vendor, model })
}

impl Names {
    /// From what a snapshot says.
    #[must_use]
    pub fn new(aliases: HashMap<String, String>, fallbacks: HashMap<String, Vec<String>>) -> Self {
        Self { aliases, fallbacks }
    }

    /// Whether every name means itself.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.aliases.is_empty() && self.fallbacks.is_empty()
    }

    /// Every alias and what it stands for.
    pub fn aliases(&self) -> impl Iterator<Item = (&str, &str)> {
        self.aliases.iter().map(|(from, to)| (from.as_str(), to.as_str()))
    }

    /// Where a client's name leads. An alias is followed once; what it stands for
    /// may name a vendor on every route.
    pub fn place<'n, K: Fn(&str) -> bool>(&'n self, name: &'n str, reading: &Reading<'n, K>) -> Place<'n> {
        match self.aliases.get(name) {
            Some(to) => reading.qualified(to),
            None if reading.open => reading.qualified(name),
            None => Place { vendor: reading.home, model: name },
        }
    }

    /// What is tried after `place`, in this order and each once: the chain of the
    /// client's name, else of the place with its vendor, else of its bare model.
    pub fn fallbacks<'n, K: Fn(&str) -> bool>(
        &'n self,
        name: &str,
        place: Place<'n>,
        reading: &Reading<'n, K>,
    ) -> Vec<Place<'n>> {
        if self.fallbacks.is_empty() {
            return Vec::new();
        }
        let full = format!("{}/{}", place.vendor, place.model);
        let chain = [name, &full, place.model].into_iter().find_map(|key| self.fallbacks.get(key));
        let mut places = Vec::new();
        for entry in chain.into_iter().flatten() {
            let to = self.aliases.get(entry).unwrap_or(entry);
            let next = reading.qualified(to);
            if next != place && !places.contains(&next) && places.len() < MAX_FALLBACKS {
                places.push(next);
            }
        }
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knows(vendor: &str) -> bool {
        ["openai", "anthropic", "openrouter", "groq"].contains(&vendor)
    }

    fn names() -> Names {
        let aliases = [
            ("fast", "groq/llama-3.1-8b"),
            ("smart", "gpt-4o"),
            ("gpt-4o", "gpt-4o-2024-08-06"),
            ("team/best", "anthropic/claude"),
        ];
        let fallbacks: [(&str, &[&str]); 4] = [
            ("fast", &["smart", "openai/gpt-4o-mini", "gpt-4o-mini"]),
            ("openai/gpt-4o-mini", &["anthropic/claude"]),
            ("claude", &["openrouter/anthropic/claude", "anthropic/claude", "meta-llama/x"]),
            ("gpt-4o-mini", &["never"]),
        ];
        let text = |text: &&str| (*text).to_owned();
        Names::new(
            aliases.iter().map(|(from, to)| (text(from), text(to))).collect(),
            fallbacks.iter().map(|(from, to)| (text(from), to.iter().map(text).collect())).collect(),
        )
    }

    #[test]
    fn a_name_finds_its_vendor() {
        let names = names();
        for (name, home, open, vendor, model) in [
            ("openai/gpt-5", "openai", true, "openai", "gpt-5"),
            ("anthropic/claude", "openai", true, "anthropic", "claude"),
            ("openrouter/meta-llama/x", "openai", true, "openrouter", "meta-llama/x"),
            ("meta-llama/x", "openai", true, "openai", "meta-llama/x"),
            ("gpt-5", "openai", true, "openai", "gpt-5"),
            ("claude", "anthropic", true, "anthropic", "claude"),
            ("openai/", "openai", true, "openai", "openai/"),
            ("/gpt-5", "openai", true, "openai", "/gpt-5"),
            ("fast", "openai", true, "groq", "llama-3.1-8b"),
            ("smart", "openai", true, "openai", "gpt-4o"),
            ("smart", "anthropic", true, "anthropic", "gpt-4o"),
            ("team/best", "openai", true, "anthropic", "claude"),
            // A vendor's own route: the client's slash is the model's.
            ("openai/gpt-oss", "groq", false, "groq", "openai/gpt-oss"),
            ("fast", "groq", false, "groq", "llama-3.1-8b"),
            ("fast", "openai", false, "groq", "llama-3.1-8b"),
            ("smart", "openrouter", false, "openrouter", "gpt-4o"),
        ] {
            let found = names.place(name, &Reading { home, open, knows });
            assert_eq!((found.vendor, found.model), (vendor, model), "{name} of {home}");
        }
    }

    #[test]
    fn a_chain_is_the_names_then_the_places_then_the_models() {
        let names = names();
        let reading = Reading { home: "openai", open: true, knows };
        for (name, wanted) in [
            ("fast", &["openai/gpt-4o", "openai/gpt-4o-mini"][..]),
            ("gpt-4o-mini", &["openai/never"]),
            ("openai/gpt-4o-mini", &["anthropic/claude"]),
            ("anthropic/claude", &["openrouter/anthropic/claude", "openai/meta-llama/x"]),
            ("gpt-5", &[]),
        ] {
            let place = names.place(name, &reading);
            let chain = names.fallbacks(name, place, &reading);
            let found: Vec<_> = chain.iter().map(|place| format!("{}/{}", place.vendor, place.model)).collect();
            assert_eq!(found, wanted, "{name}");
        }
    }

    #[test]
    fn a_chain_is_bounded() {
        let long = (0..20).map(|n| format!("m{n}")).collect();
        let names = Names::new(HashMap::new(), HashMap::from([("m".to_owned(), long)]));
        let reading = Reading { home: "openai", open: true, knows };
        assert_eq!(names.fallbacks("m", names.place("m", &reading), &reading).len(), MAX_FALLBACKS);
    }
}
