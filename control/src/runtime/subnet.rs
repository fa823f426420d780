//! The bots' pool of networks, and one block of it for each bot.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// Length of a bot's own prefix: 16 addresses.
const BLOCK_PREFIX: u32 = 28;
/// Longest prefix of a pool: one block.
const MAX_POOL_PREFIX: u32 = BLOCK_PREFIX;
/// Shortest prefix of a pool.
const MIN_POOL_PREFIX: u32 = 8;

/// The pool; also what the bots' listener accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BotPool {
    base: u32,
    prefix: u32,
}

/// One bot's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    base: u32,
}

impl Default for BotPool {
    fn default() -> Self {
        Self { base: u32::from(Ipv4Addr::new(10, 231, 0, 0)), prefix: 16 }
    }
}

impl FromStr for BotPool {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "must be an IPv4 block such as 10.231.0.0/16, from /8 to /28";
        let (address, prefix) = text.split_once('/').ok_or(FORM)?;
        let base = u32::from(address.parse::<Ipv4Addr>().map_err(|_| FORM)?);
        let prefix: u32 = prefix.parse().map_err(|_| FORM)?;
        if !(MIN_POOL_PREFIX..=MAX_POOL_PREFIX).contains(&prefix) {
            return Err(FORM);
        }
        if base & (u32::MAX >> prefix) != 0 {
            return Err("must begin where its block begins: the bits after the prefix are zero");
        }
        Ok(Self { base, prefix })
    }
}

impl fmt::Display for BotPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

impl BotPool {
    /// How many bots have room.
    #[must_use]
    pub const fn blocks(self) -> u32 {
        1 << (BLOCK_PREFIX - self.prefix)
    }

    /// The network of one bot; `None`: the pool has become smaller.
    #[must_use]
    pub fn block(self, number: u32) -> Option<Block> {
        (number < self.blocks()).then(|| Block { base: self.base + (number << (32 - BLOCK_PREFIX)) })
    }
}

impl Block {
    /// The host's own address in it: where the bots' listener is.
    #[must_use]
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 1)
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{BLOCK_PREFIX}", Ipv4Addr::from(self.base))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_fill_the_pool_and_do_not_touch() {
        let pool = BotPool::default();
        assert_eq!((pool.to_string(), pool.blocks()), ("10.231.0.0/16".into(), 4096));
        let text = |number| pool.block(number).map(|block| (block.to_string(), block.gateway().to_string()));
        assert_eq!(text(0), Some(("10.231.0.0/28".into(), "10.231.0.1".into())));
        assert_eq!(text(17), Some(("10.231.1.16/28".into(), "10.231.1.17".into())));
        assert_eq!(text(4095), Some(("10.231.255.240/28".into(), "10.231.255.241".into())));
        assert_eq!(text(4096), None);
    }

    #[test]
    fn a_pool_is_a_whole_block() {
        for (text, ok) in [
            ("10.0.0.0/8", true),
            ("192.168.7.16/28", true),
            ("192.168.7.17/28", false),
            ("10.0.0.0/7", false),
            ("10.0.0.0/29", false),
            ("10.0.0.0", false),
            ("fd00::/64", false),
        ] {
            assert_eq!(text.parse::<BotPool>().is_ok(), ok, "{text}");
        }
    }
}
