//! Every recorded answer, replayed through the running gateway in random
//! splits: the same bytes come out, and the usage row says what the vendor said.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use clawgate_tests::config::{missing, recordings, verify};
use clawgate_tests::http::{Request, Response, call};
use clawgate_tests::recordings::{Case, LEFT_OUT, load};
use clawgate_tests::stack::{Bot, Stack};
use serde_json::{Value, json};

const THREADS: usize = 8;
/// Bodies that may quote the provider key and are replaced by ours.
const REPLACED: [u16; 2] = [401, 403];
const FIELDS: [&str; 5] =
    ["input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens"];

/// One request to make: a case, how it is split, and what must come out.
struct Replay<'a> {
    case: &'a Case,
    tag: String,
    seed: usize,
    request: Value,
    body: Vec<u8>,
}

fn add_key(stack: &Stack, case: &Case, tag: &str, options: Value) {
    let base_url = stack.mock.url(&format!("/replay/{}{}", case.id, case.root));
    let body = json!({
        "vendor": case.vendor, "label": format!("{} {tag}", case.id), "secret": format!("sk-{tag}-of-the-replay"),
        "base_url": base_url, "tags": [tag], "options": options,
    });
    let request = Request::post("/provider-keys", &body).header("prefer", "respond-async");
    let answer = stack.rest().call(request);
    assert_eq!(answer.status(), 201, "{}: {}", case.id, answer.text());
}

fn send(address: SocketAddr, bot: &Bot, replay: &Replay<'_>) -> Response {
    let target = format!("/v1/{}/{}", replay.case.vendor, replay.case.path);
    let request = Request::post(&target, &replay.request)
        .bearer(&bot.token)
        .header("x-clawgate-tag", &replay.tag)
        .header("x-mock-split", &replay.seed.to_string());
    call(address, &request)
}

/// Makes, by the same bot with the same key, what recorded requests name in the
/// vendor's account; how many requests that took.
fn make_what_is_named(stack: &Stack, bot: &Bot, replays: &[Replay<'_>]) -> usize {
    let mut made = BTreeMap::new();
    for Replay { case, tag, request, .. } in replays {
        let named = |member: &str| request[member].as_str();
        let (path, answer) = match (named("cachedContent"), named("previous_interaction_id")) {
            (Some(name), _) => ("cachedContents", json!({ "name": name })),
            (_, Some(id)) => ("interactions", json!({ "id": id })),
            (None, None) => continue,
        };
        made.entry(tag).or_insert_with(|| {
            let body = json!({ "model": "gemini-3-flash-preview", "input": "begin" });
            let request = Request::post(&format!("/v1/{}/v1beta/{path}", case.vendor), &body);
            let request = request.header("x-clawgate-tag", tag).header("x-mock-body", &answer.to_string());
            let answer = call(stack.data(), &request.bearer(&bot.token));
            assert_eq!(answer.status(), 200, "{}: {}", case.id, answer.text());
        });
    }
    made.len()
}

/// Plays all; what did not match, and the request ids of what did.
fn play<'a>(stack: &Stack, bot: &Bot, replays: &'a [Replay<'a>]) -> (Vec<String>, BTreeMap<String, &'a Case>) {
    let next = AtomicUsize::new(0);
    let (wrong, ids) = (Mutex::new(Vec::new()), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(replay) = replays.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let answer = send(stack.data(), bot, replay);
                    let id = answer.head.header("x-clawgate-request-id").unwrap_or_default().to_owned();
                    ids.lock().expect("lock").insert(id, replay.case);
                    if let Some(difference) = difference(replay, &answer) {
                        wrong.lock().expect("lock").push(difference);
                    }
                }
            });
        }
    });
    (wrong.into_inner().expect("lock"), ids.into_inner().expect("lock"))
}

fn difference(replay: &Replay<'_>, answer: &Response) -> Option<String> {
    let case = replay.case;
    let context = || format!("{} seed {} at {}", case.id, replay.seed, case.path);
    if REPLACED.contains(&case.status) {
        let leaked = answer.text().contains("of-the-replay");
        let refused = answer.status() >= 400;
        return (leaked || !refused).then(|| format!("{}: {} {}", context(), answer.status(), answer.text()));
    }
    if answer.status() != case.status {
        return Some(format!("{}: status {} for {}: {}", context(), answer.status(), case.status, answer.text()));
    }
    if let Some(cut) = &answer.cut {
        return Some(format!("{}: {cut}", context()));
    }
    let at = answer.body.iter().zip(&replay.body).position(|(a, b)| a != b);
    let at =
        at.or_else(|| (answer.body.len() != replay.body.len()).then(|| answer.body.len().min(replay.body.len())))?;
    let show = |bytes: &[u8]| String::from_utf8_lossy(&bytes[at..bytes.len().min(at + 120)]).into_owned();
    Some(format!(
        "{}: {} bytes for {}, different at {at}: {:?} for {:?}",
        context(),
        answer.body.len(),
        replay.body.len(),
        show(&answer.body),
        show(&replay.body)
    ))
}

fn row_differences(case: &Case, row: &Value) -> Vec<String> {
    let expected = &case.expected;
    if expected["has_usage"] != true {
        let claimed = row["usage_source"] == "upstream";
        return claimed.then(|| format!("{}: claims usage that is not there: {row}", case.id)).into_iter().collect();
    }
    let mut wrong = Vec::new();
    for field in FIELDS {
        if row[field] != expected[field] {
            wrong.push(format!("{}: {field} {} for {}", case.id, row[field], expected[field]));
        }
    }
    if !expected["model"].is_null() && row["model"] != expected["model"] {
        wrong.push(format!("{}: model {} for {}", case.id, row["model"], expected["model"]));
    }
    if row["usage_source"] != "upstream" {
        wrong.push(format!("{}: usage_source {}", case.id, row["usage_source"]));
    }
    wrong
}

/// Plays all and compares answers and usage rows.
fn verdict(stack: &Stack, bot: &Bot, replays: &[Replay<'_>]) {
    assert_eq!(stack.bot("barrier", json!({})).hostname, "barrier", "this write waits for the node");
    let made = make_what_is_named(stack, bot, replays);
    let (mut wrong, ids) = play(stack, bot, replays);
    assert_eq!(ids.len(), replays.len(), "request ids are not unique or missing; {wrong:#?}");
    let rows = stack.rest().usage_rows(&bot.hostname, replays.len() + made);
    let mut seen = 0;
    for row in &rows {
        if let Some(case) = row["id"].as_str().and_then(|id| ids.get(id)) {
            seen += 1;
            wrong.extend(row_differences(case, row));
        }
    }
    assert_eq!(seen, replays.len(), "{} rows", rows.len());
    wrong.sort();
    wrong.dedup();
    let shown: Vec<&String> = wrong.iter().take(60).collect();
    assert!(wrong.is_empty(), "{} of {} replays differ: {shown:#?}", wrong.len(), replays.len());
}

#[test]
fn every_recording_comes_through_unchanged_and_is_counted() {
    let Some(folder) = recordings() else { return missing("the folder of recordings") };
    let (cases, unreachable) = load(&folder);
    let index = std::fs::read_to_string(folder.join("INDEX.tsv")).expect("an index");
    assert_eq!(cases.len() + unreachable.len() + LEFT_OUT.len(), index.lines().count() - 1, "all that are listed");
    assert!(unreachable.is_empty(), "no callable path for {unreachable:#?}");
    let stack = Stack::start();
    let bot = stack.bot("replay", json!({ "permissions": ["account_resources"] }));
    let splits = if verify() { 10 } else { 3 };
    let mut replays = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        for split in 0..splits {
            // An error makes a key cool or suspect, also where it says 200: each split
            // has its own.
            let alone = case.status >= 400 || case.id.contains("http200-error");
            let tag = if alone { format!("c{number}s{split}") } else { format!("c{number}") };
            if split == 0 || alone {
                add_key(&stack, case, &tag, json!({}));
            }
            let seed = 1 + number * 31 + split * 7919;
            replays.push(Replay { case, tag, seed, request: case.request.clone(), body: case.body.clone() });
        }
    }
    verdict(&stack, &bot, &replays);
}

#[test]
fn usage_that_only_we_asked_for_is_taken_out_again() {
    let Some(folder) = recordings() else { return missing("the folder of recordings") };
    let (cases, _) = load(&folder);
    let cases: Vec<&Case> = cases.iter().filter(|case| case.asked_for_usage() && case.status == 200).collect();
    assert!(cases.len() > 80, "{} cases", cases.len());
    let stack = Stack::start();
    let bot = stack.bot("replay", json!({}));
    let mut replays = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let tag = format!("c{number}");
        add_key(&stack, case, &tag, json!({ "include_usage": "inject" }));
        let mut request = case.request.clone();
        if let Some(fields) = request.as_object_mut() {
            fields.remove("stream_options");
        }
        for split in 0..3 {
            let body = case.without_usage_frame();
            let seed = 1 + number * 17 + split * 104_729;
            replays.push(Replay { case, tag: tag.clone(), seed, request: request.clone(), body });
        }
    }
    let with_frame = cases.iter().filter(|case| case.without_usage_frame().len() != case.body.len()).count();
    assert!(with_frame > 30, "only {with_frame} recordings carry a frame of usage alone");
    verdict(&stack, &bot, &replays);
}
