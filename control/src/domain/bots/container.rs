//! What is wanted of a bot's container.
//!
//! Everything that a container is made of moves the generation, so that whoever
//! compares knows that the old one must go.

use std::collections::BTreeMap;

use clawgate_shared::seal::SealingKey;
use serde_json::Value;

use super::{Change, tokens};
use crate::domain::rules::Errors;
use crate::domain::{Domain, DomainError, resources};
use crate::runtime::spec::{FileSpec, ProbeSpec, RunSpec};
use crate::runtime::subnet::BotPool;
use crate::store::bots::BotRow;
use crate::store::containers::{self, ContainerRow, RemainsRow, Seen, Size};
use crate::store::row::to_json;
use crate::store::types::{Adapter, BotStatus, Health, Reason, Resources};
use crate::store::{StoreError, bot_tokens};
use crate::vault::Purpose;

/// Name of the bot token that is inside.
const TOKEN_NAME: &str = "container";
/// What a container may take when nothing is said.
const SIZE: Size = Size { cpu_millis: 1000, memory_mb: 512, pids_limit: 512, disk_mb: 0 };
const MAX_IMAGE: usize = 255;
const MAX_WORDS: usize = 64;
const MAX_WORD: usize = 4096;
const MAX_ENV: usize = 128;
const MAX_VALUE: usize = 8192;
const MAX_FILES: usize = 16;
const MAX_CONTENT: usize = 64 << 10;
const MAX_PATH: usize = 255;
/// What is said by us alone.
const OURS: &str = "CLAWGATE_";
/// Where nothing of a bot's may be put.
const SYSTEM: &[&str] = &["/proc", "/sys", "/dev"];

/// A row for a bot that is about to be made.
pub(super) async fn attach(
    change: &mut Change,
    domain: &Domain,
    row: &mut BotRow,
    run: &RunSpec,
    now: i64,
) -> Result<(), DomainError> {
    let blocks = domain.pool.blocks();
    let full = DomainError::LimitReached { what: "networks in the bots' pool", limit: blocks.into() };
    let subnet = containers::free_subnet(change, blocks).await?.ok_or(full)?;
    let (token_id, sealed_token) = mint(change, domain, &row.id, subnet, now).await?;
    let door = SealingKey::generate().map_err(|error| DomainError::Vault(error.into()))?;
    let door: String = door.expose().iter().map(|byte| format!("{byte:02x}")).collect();
    let container = ContainerRow {
        bot_id: row.id.clone(),
        generation: 1,
        run: to_json(run)?,
        runner_id: None,
        subnet,
        size: size(row.resources),
        token_id,
        sealed_token,
        sealed_gateway_token: domain.vault.seal_blob(Purpose::GatewayToken, &row.id, door.as_bytes())?,
        restart_of: String::new(),
        killed: false,
        seen: unseen(now),
    };
    containers::insert(change, &container).await?;
    (row.status, row.status_since) = (container.seen.status, now);
    row.container = Some(Box::new(container));
    Ok(())
}

fn unseen(now: i64) -> Seen {
    Seen {
        status: BotStatus::Pending,
        reason: Reason::None,
        text: String::new(),
        since: now,
        container_id: String::new(),
        image_digest: String::new(),
        started_at: String::new(),
        exit_code: None,
        oom: false,
        restart_count: 0,
        health: Health::Unknown,
        health_at: None,
        observed_at: None,
        failures: 0,
        retry_at: None,
    }
}

/// What a bot's container takes with these words of its owner's.
pub(super) fn size(given: Option<Resources>) -> Size {
    let given = given.unwrap_or_default();
    Size {
        cpu_millis: given.cpu_millis.map_or(SIZE.cpu_millis, u64::from),
        memory_mb: given.memory_mb.map_or(SIZE.memory_mb, u64::from),
        pids_limit: given.pids_limit.map_or(SIZE.pids_limit, u64::from),
        disk_mb: given.disk_mb.map_or(SIZE.disk_mb, u64::from),
    }
}

/// A new generation when what the container is made of has changed.
pub(super) async fn changed(
    change: &mut Change,
    (before, row): (&BotRow, &mut BotRow),
    run: Option<RunSpec>,
) -> Result<(), DomainError> {
    let (wanted, image) = (size(row.resources), before.image == row.image);
    let Some(container) = row.container.as_deref_mut() else { return Ok(()) };
    let run = match run {
        Some(run) => to_json(&run)?,
        None => container.run.clone(),
    };
    if image && run == container.run && wanted == container.size {
        return Ok(());
    }
    resources::check_size(change, &row.tenant_id, container.size, wanted).await?;
    (container.run, container.size) = (run, wanted);
    container.generation += 1;
    again(container);
    containers::want(change, container).await?;
    Ok(())
}

/// What failed before says nothing about what is wanted now.
fn again(container: &mut ContainerRow) {
    (container.seen.failures, container.seen.retry_at) = (0, None);
}

/// It is wanted up: with a token that works; `restart`: it is to end first.
pub(super) async fn up(
    change: &mut Change,
    domain: &Domain,
    row: &mut BotRow,
    restart: bool,
    now: i64,
) -> Result<(), DomainError> {
    let Some(container) = row.container.as_deref_mut() else { return Ok(()) };
    let usable = bot_tokens::of_bot(change, &container.bot_id).await?.into_iter().any(|token| {
        token.id == container.token_id && token.revoked_at.is_none() && token.expires_at.is_none_or(|at| at > now)
    });
    if !usable {
        fresh_token(change, domain, container, now).await?;
    }
    container.killed = false;
    container.restart_of = if restart { container.seen.started_at.clone() } else { String::new() };
    again(container);
    containers::want(change, container).await?;
    Ok(())
}

/// It is wanted down.
pub(super) async fn down(change: &mut Change, row: &mut BotRow, killed: bool) -> Result<(), DomainError> {
    let Some(container) = row.container.as_deref_mut() else { return Ok(()) };
    container.killed = killed;
    container.restart_of.clear();
    again(container);
    containers::want(change, container).await?;
    Ok(())
}

/// Another token goes in: every one there was ends soon.
pub(super) async fn rotated(
    change: &mut Change,
    domain: &Domain,
    row: &mut BotRow,
    now: i64,
) -> Result<(), DomainError> {
    let Some(container) = row.container.as_deref_mut() else { return Ok(()) };
    fresh_token(change, domain, container, now).await?;
    again(container);
    containers::want(change, container).await?;
    Ok(())
}

async fn fresh_token(
    change: &mut Change,
    domain: &Domain,
    container: &mut ContainerRow,
    now: i64,
) -> Result<(), DomainError> {
    let (token_id, sealed) = mint(change, domain, &container.bot_id, container.subnet, now).await?;
    (container.token_id, container.sealed_token) = (token_id, sealed);
    container.generation += 1;
    Ok(())
}

/// Remembers what a runner still has of a bot that is deleted.
pub(super) async fn leave(change: &mut Change, row: &BotRow, now: i64) -> Result<(), DomainError> {
    let Some(container) = row.container.as_deref() else { return Ok(()) };
    let Some(runner_id) = container.runner_id.clone() else { return Ok(()) };
    let remains = RemainsRow {
        bot_id: row.id.clone(),
        tenant_id: row.tenant_id.clone(),
        hostname: row.hostname.clone(),
        runner_id,
        subnet: container.subnet,
        created_at: now,
    };
    containers::add_remains(change, &remains).await?;
    Ok(())
}

/// A token that is good in the bot's own network only: its id, and its text
/// sealed.
async fn mint(
    change: &mut Change,
    domain: &Domain,
    bot_id: &str,
    subnet: u32,
    now: i64,
) -> Result<(String, Vec<u8>), DomainError> {
    let network = network(domain.pool, subnet)?;
    let minted = tokens::add_within(change, bot_id, TOKEN_NAME, (None, Some(network)), now).await?;
    let sealed = domain.vault.seal_blob(Purpose::ContainerToken, bot_id, minted.text.as_bytes())?;
    Ok((minted.row.id, sealed))
}

fn network(pool: BotPool, subnet: u32) -> Result<String, DomainError> {
    let block = pool.block(subnet).ok_or_else(|| StoreError::corrupt("subnet", "outside the bots' pool"))?;
    Ok(block.to_string())
}

/// Notes what is wrong with the bot as one that we run, or do not.
pub(super) fn check(errors: &mut Errors, row: &BotRow, run: Option<&RunSpec>) {
    if row.adapter == Adapter::External {
        for (field, given) in
            [("image", row.image.is_some()), ("resources", row.resources.is_some()), ("container", run.is_some())]
        {
            if given {
                errors.add(field, "not_allowed", "is for bots that we run; the adapter is external");
            }
        }
        return;
    }
    if !crate::runtime::adapters::is_run(row.adapter) {
        errors.add("adapter", "not_allowed", "this release runs bots with the adapter generic");
    }
    match &row.image {
        None => errors.add("image", "required", "a bot that we run needs an image"),
        Some(image) if !is_image(image) => {
            errors.add("image", "format", "must be an image's name, for example ghcr.io/acme/bot:1.2 or …@sha256:…");
        }
        Some(_) => {}
    }
}

fn is_image(text: &str) -> bool {
    text.len() <= MAX_IMAGE
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b))
        && !text.contains("//")
        && !text.contains("..")
        && !text.ends_with(['/', ':', '@'])
}

/// Reads and checks what the owner says of the container.
pub(super) fn parse(errors: &mut Errors, value: &Value) -> RunSpec {
    let run = match serde_json::from_value::<RunSpec>(value.clone()) {
        Ok(run) => run,
        Err(error) => {
            errors.add("container", "type", error.to_string());
            return RunSpec::default();
        }
    };
    words(errors, "container.command", &run.command);
    env(errors, &run.env);
    if let Some(probe) = &run.probe {
        check_probe(errors, probe);
    }
    files(errors, &run.files);
    if let Some(path) = &run.state_path {
        check_path(errors, "container.state_path", path);
    }
    if let Some(user) = &run.user
        && !is_user(user)
    {
        errors.add("container.user", "format", "must be uid or uid:gid, numbers and not root");
    }
    for (key, value) in &run.runner_labels {
        if key.is_empty()
            || key.len() > 64
            || value.len() > 128
            || key.chars().chain(value.chars()).any(char::is_control)
        {
            errors.add("container.runner_labels", "format", "keys have 1 to 64 characters, values at most 128");
        }
    }
    run
}

fn words(errors: &mut Errors, field: &str, words: &[String]) {
    if words.len() > MAX_WORDS {
        errors.add(field, "length", format!("must have at most {MAX_WORDS} entries"));
    }
    if words.iter().any(|word| word.len() > MAX_WORD || word.contains('\0')) {
        errors.add(field, "format", format!("entries have at most {MAX_WORD} bytes and no zero byte"));
    }
}

fn env(errors: &mut Errors, env: &BTreeMap<String, String>) {
    if env.len() > MAX_ENV {
        errors.add("container.env", "length", format!("must have at most {MAX_ENV} entries"));
        return;
    }
    for (name, value) in env {
        let field = || format!("container.env.{}", name.chars().take(64).collect::<String>());
        let head = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        if name.len() > 128 || !head || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            errors.add(field(), "format", "a variable's name is letters, digits and _, and begins with no digit");
        } else if name.starts_with(OURS) {
            errors.add(field(), "reserved", "variables that begin with CLAWGATE_ are set by us");
        } else if value.len() > MAX_VALUE || value.contains('\0') {
            errors.add(field(), "length", format!("must have at most {MAX_VALUE} bytes and no zero byte"));
        }
    }
}

fn check_probe(errors: &mut Errors, probe: &ProbeSpec) {
    errors.range("container.probe.port", probe.port.into(), 1, 65_535);
    if !probe.path.starts_with('/') || probe.path.len() > 512 || !probe.path.bytes().all(|b| b.is_ascii_graphic()) {
        errors.add("container.probe.path", "format", "must be an absolute path of printable ASCII without blanks");
    }
    if probe.json_value.is_some() && probe.json_key.is_none() {
        errors.add("container.probe.json_key", "required", "json_value is the value of json_key");
    }
    for (name, text) in [("json_key", &probe.json_key), ("json_value", &probe.json_value)] {
        if let Some(text) = text {
            errors.text(&format!("container.probe.{name}"), text, 1, 128);
        }
    }
}

fn files(errors: &mut Errors, files: &[FileSpec]) {
    if files.len() > MAX_FILES {
        errors.add("container.files", "length", format!("must have at most {MAX_FILES} entries"));
    }
    for (at, file) in files.iter().take(MAX_FILES).enumerate() {
        check_path(errors, &format!("container.files[{at}].path"), &file.path);
        if file.content.len() > MAX_CONTENT {
            errors.add(format!("container.files[{at}].content"), "length", format!("at most {MAX_CONTENT} bytes"));
        }
        if file.mode.is_some_and(|mode| mode > 0o777) {
            errors.add(format!("container.files[{at}].mode"), "range", "must be from 0 to 511, permission bits only");
        }
        if files.iter().take(at).any(|other| other.path == file.path) {
            errors.add(format!("container.files[{at}].path"), "duplicate", "is given twice");
        }
    }
}

fn check_path(errors: &mut Errors, field: &str, path: &str) {
    let parts = path.strip_prefix('/').unwrap_or_default();
    let plain = !parts.is_empty()
        && path.len() <= MAX_PATH
        && parts.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
        && !path.chars().any(char::is_control)
        && !path.contains([':', ',']);
    if !plain {
        errors.add(field, "format", "must be an absolute path without .., // and a / at its end");
    } else if SYSTEM.iter().any(|root| path == *root || path.starts_with(&format!("{root}/"))) {
        errors.add(field, "not_allowed", "is a place of the system");
    }
}

fn is_user(text: &str) -> bool {
    let number = |part: &str| part.parse::<u32>().is_ok_and(|id| id > 0) && !part.starts_with('+');
    match text.split_once(':') {
        Some((uid, gid)) => number(uid) && number(gid),
        None => number(text),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::DomainError;

    fn refused(value: &Value) -> Vec<(String, &'static str)> {
        let mut errors = Errors::default();
        parse(&mut errors, value);
        match errors.finish() {
            Ok(()) => Vec::new(),
            Err(DomainError::Invalid { errors }) => errors.into_iter().map(|e| (e.field, e.rule)).collect(),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn what_an_owner_may_say_and_what_not() {
        let good = json!({
            "command": ["serve", "--port", "80"], "env": {"A_1": "{{bot_token}}"},
            "probe": {"port": 80, "path": "/healthz", "json_key": "ok", "json_value": "true"},
            "files": [{"path": "/etc/bot/x.json", "content": "{}", "mode": 384}], "state_path": "/state",
            "user": "1000:1000", "read_only": true, "runner_labels": {"zone": "a"},
        });
        assert_eq!(refused(&good), Vec::new());
        for (value, field, rule) in [
            (json!({"privileged": true}), "container", "type"),
            (json!({"command": "serve"}), "container", "type"),
            (json!({"env": {"1A": ""}}), "container.env.1A", "format"),
            (json!({"env": {"CLAWGATE_BOT_TOKEN": "x"}}), "container.env.CLAWGATE_BOT_TOKEN", "reserved"),
            (json!({"env": {"A": "\0"}}), "container.env.A", "length"),
            (json!({"probe": {"port": 0, "path": "/"}}), "container.probe.port", "range"),
            (json!({"probe": {"port": 1, "path": "x"}}), "container.probe.path", "format"),
            (json!({"files": [{"path": "../x", "content": ""}]}), "container.files[0].path", "format"),
            (json!({"files": [{"path": "/a/../x", "content": ""}]}), "container.files[0].path", "format"),
            (json!({"files": [{"path": "/proc/x", "content": ""}]}), "container.files[0].path", "not_allowed"),
            (json!({"files": [{"path": "/x", "content": "", "mode": 2541}]}), "container.files[0].mode", "range"),
            (json!({"state_path": "/"}), "container.state_path", "format"),
            (json!({"user": "0"}), "container.user", "format"),
            (json!({"user": "root"}), "container.user", "format"),
            (json!({"user": "1000:0"}), "container.user", "format"),
        ] {
            assert_eq!(refused(&value), vec![(field.to_owned(), rule)], "{value}");
        }
    }

    #[test]
    fn an_image_is_a_name_and_nothing_else() {
        for (text, ok) in [
            ("busybox", true),
            ("ghcr.io/acme/bot:1.2", true),
            ("host:5000/a/b@sha256:0123", true),
            ("-v", false),
            ("a b", false),
            ("a;b", false),
            ("../x", false),
            ("a//b", false),
            ("a:", false),
        ] {
            assert_eq!(is_image(text), ok, "{text}");
        }
    }
}
