//! What a cell is made of, checked: parsed once from the wire, refused with a
//! reason before an engine hears of it.

use std::net::Ipv4Addr;

use clawgate_shared::proto::runner as wire;
use zeroize::Zeroizing;

/// Why a spec is refused; names what is wrong, never a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SpecError(pub &'static str);

/// A checked spec. There is no privilege, no mount of the host, no namespace of
/// the host and no capability in it.
#[derive(Debug)]
pub struct CellSpec {
    /// Whose it is.
    pub owner: Owner,
    /// An image reference.
    pub image: String,
    /// Empty: the image's own.
    pub command: Vec<String>,
    /// `NAME=value`; values may be secret.
    pub env: Secret<Vec<Zeroizing<String>>>,
    /// Absolute path, content, mode; contents may be secret.
    pub files: Secret<Vec<(String, Zeroizing<Vec<u8>>, u32)>>,
    /// Where the state volume is mounted.
    pub state_path: Option<String>,
    /// Numeric user and group; never root.
    pub user: (u32, u32),
    /// Whether the root file system is read-only.
    pub read_only: bool,
    /// How to ask whether it is well.
    pub probe: Option<ProbeSpec>,
    /// Thousandths of a processor.
    pub cpu_millis: u64,
    /// Memory, swap included.
    pub memory_mb: u64,
    /// Processes and threads.
    pub pids_limit: u64,
    /// Network address and prefix length of its own network.
    pub subnet: (Ipv4Addr, u8),
    /// The host's address in it.
    pub gateway: Ipv4Addr,
}

/// A value that is never printed.
pub struct Secret<T>(pub T);

impl<T> std::fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

/// What the labels say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The bot.
    pub bot_id: String,
    /// Its tenant.
    pub tenant_id: String,
    /// Its name among the tenant's bots.
    pub hostname: String,
    /// Which of its specs this is.
    pub generation: u64,
}

/// An HTTP probe from the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeSpec {
    /// Port in the container.
    pub port: u16,
    /// Path that is asked for.
    pub path: String,
    /// A member that the JSON answer must have; empty: any 2xx is well.
    pub key: String,
    /// What it must be; empty: anything.
    pub value: String,
}

const MAX_TEXT: usize = 255;
const MAX_ENV: usize = 256;
const MAX_VALUE: usize = 64 << 10;
const MAX_FILES: usize = 128;
const MAX_FILE_BYTES: usize = 4 << 20;
const MAX_COMMAND: usize = 64;
/// 1000:1000, whom OpenClaw's image is made for.
const DEFAULT_USER: (u32, u32) = (1000, 1000);

/// Whether this can be part of a name in an engine.
#[must_use]
pub fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn is_hostname(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// `[host[:port]/]path[:tag][@sha256:…]`, in the characters that may occur.
fn is_image(text: &str) -> bool {
    let (name, digest) = text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
    let digest_ok = digest.is_none_or(|digest| {
        let hex = digest.strip_prefix("sha256:").unwrap_or_default();
        hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    });
    let (path, tag) = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (name, None),
    };
    let tag_ok = tag.is_none_or(|tag| {
        let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        (1..=128).contains(&tag.len()) && tag.bytes().all(word) && !tag.starts_with(['.', '-'])
    });
    let part_ok = |part: &str| {
        let byte = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.' | b'-' | b':');
        let edge = |c: char| c.is_ascii_alphanumeric();
        part.bytes().all(byte) && part.starts_with(edge) && part.ends_with(edge)
    };
    text.len() <= MAX_TEXT && digest_ok && tag_ok && path.split('/').all(part_ok)
}

/// Absolute, without `.`, `..`, empty parts or control characters, and not in
/// a place that the kernel fills.
fn is_path(text: &str) -> bool {
    let Some(rest) = text.strip_prefix('/') else { return false };
    let part_ok =
        |part: &str| !matches!(part, "" | "." | "..") && !part.contains(|c: char| c.is_control() || c == '\\');
    let first = rest.split('/').next().unwrap_or_default();
    // A colon would read as a part of a mount's form.
    text.len() <= MAX_TEXT
        && !text.contains(':')
        && rest.split('/').all(part_ok)
        && !matches!(first, "proc" | "sys" | "dev")
}

fn user(text: &str) -> Result<(u32, u32), SpecError> {
    if text.is_empty() {
        return Ok(DEFAULT_USER);
    }
    let bad = SpecError("user is not UID:GID in numbers, other than root");
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    let number = |text: &str| text.parse::<u32>().ok().filter(|n| (1..=65_533).contains(n));
    match (number(uid), number(gid)) {
        (Some(uid), Some(gid)) => Ok((uid, gid)),
        _ => Err(bad),
    }
}

fn subnet(text: &str, gateway: &str) -> Result<((Ipv4Addr, u8), Ipv4Addr), SpecError> {
    let bad = SpecError("subnet and gateway are not a private network of /24 to /29 and the host's address in it");
    let (address, length) = text.split_once('/').ok_or(bad.clone())?;
    let address: Ipv4Addr = address.parse().map_err(|_| bad.clone())?;
    let length: u8 = length.parse().ok().filter(|n| (24..=29).contains(n)).ok_or(bad.clone())?;
    let gateway: Ipv4Addr = gateway.parse().map_err(|_| bad.clone())?;
    let mask = u32::MAX << (32 - u32::from(length));
    let fits = address.to_bits() & !mask == 0
        && gateway.to_bits() & mask == address.to_bits()
        && gateway != address
        && gateway.to_bits() | mask != u32::MAX;
    if fits && address.is_private() { Ok(((address, length), gateway)) } else { Err(bad) }
}

fn variables(told: Vec<wire::Variable>) -> Result<Vec<Zeroizing<String>>, SpecError> {
    if told.len() > MAX_ENV {
        return Err(SpecError("there are too many variables"));
    }
    let one = |variable: wire::Variable| {
        let (name, value) = (variable.name, Zeroizing::new(variable.value));
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let named = (1..=128).contains(&name.len())
            && name.bytes().all(word)
            && !name.starts_with(|c: char| c.is_ascii_digit());
        if !named || value.len() > MAX_VALUE || value.contains('\0') {
            return Err(SpecError("a variable's name or value cannot be one"));
        }
        Ok(Zeroizing::new(format!("{name}={}", *value)))
    };
    told.into_iter().map(one).collect()
}

fn files(told: Vec<wire::File>) -> Result<Vec<(String, Zeroizing<Vec<u8>>, u32)>, SpecError> {
    let bytes: usize = told.iter().map(|file| file.content.len()).sum();
    if told.len() > MAX_FILES || bytes > MAX_FILE_BYTES {
        return Err(SpecError("there are too many files, or they are too large"));
    }
    let one = |file: wire::File| {
        // The path's form, and no bit that lends rights.
        if !is_path(&file.path) || file.path.len() > 99 || file.mode & !0o777 != 0 {
            return Err(SpecError("a file's path or mode cannot be one"));
        }
        Ok((file.path, Zeroizing::new(file.content), if file.mode == 0 { 0o600 } else { file.mode }))
    };
    told.into_iter().map(one).collect()
}

fn probe(told: Option<wire::Probe>) -> Result<Option<ProbeSpec>, SpecError> {
    let Some(told) = told else { return Ok(None) };
    let port = u16::try_from(told.port).ok().filter(|port| *port > 0);
    let clean = |text: &str| text.len() <= MAX_TEXT && text.bytes().all(|b| (0x21..0x7f).contains(&b));
    match port {
        Some(port)
            if told.path.starts_with('/')
                && [&told.path, &told.json_key, &told.json_value].into_iter().all(|text| clean(text)) =>
        {
            Ok(Some(ProbeSpec { port, path: told.path, key: told.json_key, value: told.json_value }))
        }
        _ => Err(SpecError("the probe's port, path or member cannot be one")),
    }
}

fn within(value: u64, low: u64, high: u64, what: &'static str) -> Result<u64, SpecError> {
    if (low..=high).contains(&value) { Ok(value) } else { Err(SpecError(what)) }
}

impl CellSpec {
    /// Checks all of it.
    ///
    /// # Errors
    /// The first thing that cannot be.
    pub fn parse(bot_id: &str, generation: u64, told: wire::CellSpec) -> Result<Self, SpecError> {
        if !is_id(bot_id) || !is_id(&told.tenant_id) {
            return Err(SpecError("the bot's or tenant's id is no id"));
        }
        if !is_hostname(&told.hostname) {
            return Err(SpecError("hostname is not one"));
        }
        if !is_image(&told.image) {
            return Err(SpecError("image is no image reference"));
        }
        let word = |text: &String| text.len() <= MAX_VALUE && !text.contains('\0');
        if told.command.len() > MAX_COMMAND || !told.command.iter().all(word) {
            return Err(SpecError("command cannot be one"));
        }
        if told.disk_mb != 0 {
            return Err(SpecError("this engine cannot limit a bot's disk"));
        }
        let state_path = Some(told.state_path).filter(|path| !path.is_empty());
        if state_path.as_deref().is_some_and(|path| !is_path(path)) {
            return Err(SpecError("state_path is no absolute path"));
        }
        let files = files(told.files)?;
        let in_state = |path: &str| state_path.as_deref().is_some_and(|state| inside(state, path).is_some());
        if told.read_only && !files.iter().all(|(path, ..)| in_state(path)) {
            return Err(SpecError("with a read-only root, files are possible under state_path only"));
        }
        let (subnet, gateway) = subnet(&told.subnet, &told.gateway)?;
        Ok(Self {
            owner: Owner { bot_id: bot_id.to_owned(), tenant_id: told.tenant_id, hostname: told.hostname, generation },
            image: told.image,
            command: told.command,
            env: Secret(variables(told.env)?),
            files: Secret(files),
            state_path,
            user: user(&told.user)?,
            read_only: told.read_only,
            probe: probe(told.probe)?,
            cpu_millis: within(told.cpu_millis, 10, 256_000, "cpu_millis is not between 10 and 256000")?,
            memory_mb: within(told.memory_mb, 6, 1 << 20, "memory_mb is not between 6 and 1048576")?,
            pids_limit: within(told.pids_limit, 1, 32_768, "pids_limit is not between 1 and 32768")?,
            subnet,
            gateway,
        })
    }
}

/// `path` within `folder`, relative to it.
#[must_use]
pub fn inside<'a>(folder: &str, path: &'a str) -> Option<&'a str> {
    path.strip_prefix(folder)?.strip_prefix('/')
}
