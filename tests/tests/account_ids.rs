//! Ids that live in one vendor account go back to the key that made them, and to
//! no bot but the one that made them.

use std::net::SocketAddr;
use std::time::Duration;

use clawgate_tests::http::{Request, Response, call};
use clawgate_tests::stack::{Bot, Service, Stack, chat_body, enroll};
use clawgate_tests::wait::{until, until_good};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);
/// More than there are keys: round robin would have gone elsewhere.
const OFTEN: usize = 5;

/// Two keys of one vendor, and two bots that may use account resources.
fn house() -> (Stack, Bot, Bot) {
    let stack = Stack::start();
    for secret in ["sk-first", "sk-second"] {
        stack.key("openai", secret, &stack.mock.url("/v1"), &[], json!({}));
        stack.key("google", secret, &stack.mock.url("/v1beta"), &[], json!({}));
    }
    let permitted = || json!({ "permissions": ["account_resources"] });
    let (alpha, beta) = (stack.bot("alpha", permitted()), stack.bot("beta", permitted()));
    (stack, alpha, beta)
}

fn get(node: SocketAddr, bot: &Bot, path: &str) -> Response {
    call(node, &Request::new("GET", path).bearer(&bot.token))
}

fn post(node: SocketAddr, bot: &Bot, path: &str, body: &Value) -> Response {
    call(node, &Request::post(path, body).bearer(&bot.token))
}

/// Uploads a file; its id and the key that has it.
fn upload(node: SocketAddr, bot: &Bot, content: &str) -> (String, String) {
    let form = format!(
        "--b\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--b\r\ncontent-disposition: form-data; \
         name=\"file\"; filename=\"f\"\r\n\r\n{content}\r\n--b--\r\n"
    );
    let request = Request::new("POST", "/v1/openai/files").header("content-type", "multipart/form-data; boundary=b");
    served(&call(node, &request.bearer(&bot.token).body(form.into_bytes())))
}

/// What an answer named, and the key that gave it.
fn served(answer: &Response) -> (String, String) {
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let body = answer.json();
    let id = body["id"].as_str().or(body["name"].as_str()).unwrap_or_default();
    (id.to_owned(), key(answer))
}

fn key(answer: &Response) -> String {
    answer.head.header("x-clawgate-key").unwrap_or_default().to_owned()
}

fn refused(answer: &Response) {
    assert_eq!((answer.status(), answer.code().as_str()), (403, "path_denied"), "{}", answer.text());
}

#[test]
fn two_bots_on_the_same_keys_reach_only_what_each_made_itself() {
    let (stack, alpha, beta) = house();
    let node = stack.data();
    let (file, home) = upload(node, &alpha, "one");
    let path = format!("/v1/openai/files/{file}");
    for _ in 0..OFTEN {
        assert_eq!(served(&get(node, &alpha, &path)), (file.clone(), home.clone()));
    }
    // Whether it exists cannot be told from the answer.
    let (others, nobodys) = (get(node, &beta, &path), get(node, &beta, "/v1/openai/files/file-1"));
    refused(&others);
    refused(&nobodys);
    assert_eq!(others.json()["error"]["message"], nobodys.json()["error"]["message"]);
    refused(&call(node, &Request::new("DELETE", &path).bearer(&beta.token)));
    let list = get(node, &alpha, "/v1/openai/files");
    refused(&list);
    assert!(list.text().contains("other bots"), "{}", list.text());

    let plain = stack.bot("plain", json!({}));
    let mut chat = chat_body(false);
    chat["messages"][0]["content"] = json!([{ "type": "file", "file": { "file_id": file } }]);
    for _ in 0..OFTEN {
        let answer = post(node, &alpha, "/v1/openai/chat/completions", &chat);
        assert_eq!((answer.status(), key(&answer)), (200, home.clone()), "{}", answer.text());
    }
    for bot in [&beta, &plain] {
        refused(&post(node, bot, "/v1/openai/chat/completions", &chat));
        assert_eq!(stack.chat(bot).status(), 200, "what names nothing is served");
    }

    // A batch goes where its file is, and its results are its bot's.
    let batch = json!({ "input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h" });
    refused(&post(node, &beta, "/v1/openai/batches", &batch));
    let (batch, at) = served(&post(node, &alpha, "/v1/openai/batches", &batch));
    assert_eq!(at, home);
    let path = format!("/v1/openai/batches/{batch}");
    refused(&get(node, &beta, &path));
    let done = get(node, &alpha, &path).json();
    let results = format!("/v1/openai/files/{}", done["output_file_id"].as_str().unwrap_or_default());
    refused(&get(node, &beta, &results));
    assert_eq!(served(&get(node, &alpha, &results)).1, home);

    // Google's names, and a refusal in its words.
    let cache = json!({ "model": "models/gemini-2.5-flash", "contents": [] });
    let (cache, home) = served(&post(node, &alpha, "/v1/google/cachedContents", &cache));
    let body = json!({ "contents": [{ "parts": [{ "text": "hi" }] }], "cachedContent": cache });
    let generate = "/v1/google/models/gemini-2.5-flash:generateContent";
    for _ in 0..OFTEN {
        let answer = post(node, &alpha, generate, &body);
        assert_eq!((answer.status(), key(&answer)), (200, home.clone()), "{}", answer.text());
    }
    let refusal = post(node, &beta, generate, &body);
    refused(&refusal);
    assert_eq!(refusal.json()["error"]["status"], "PERMISSION_DENIED");
    refused(&get(node, &beta, &format!("/v1/google/v1beta/{cache}")));
    assert_eq!(get(node, &alpha, &format!("/v1/google/v1beta/{cache}")).status(), 200);
}

/// The first event's response id.
fn streamed_id(answer: &Response) -> String {
    let text = answer.text();
    let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or_else(|| panic!("{text}"));
    let event: Value = serde_json::from_str(data).expect("an event");
    event["response"]["id"].as_str().unwrap_or_else(|| panic!("{data}")).to_owned()
}

#[test]
fn a_stored_response_is_continued_by_its_bot_where_it_is_stored() {
    let (stack, alpha, beta) = house();
    let node = stack.data();
    let ask = |input: &str, more: Value| {
        let mut body = json!({ "model": "gpt-4o", "input": input });
        body.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        body
    };
    let path = "/v1/openai/responses";
    let mut homes = Vec::new();
    for number in 0..4 {
        let stream = number % 2 == 1;
        let answer = post(node, &alpha, path, &ask(&format!("begin {number}"), json!({ "stream": stream })));
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let id = if stream { streamed_id(&answer) } else { served(&answer).0 };
        homes.push((id, key(&answer)));
    }
    assert_ne!(homes[0].1, homes[1].1, "what names nothing takes its turn");
    for (number, (id, home)) in homes.iter().enumerate() {
        let next = ask(&format!("go on {number}"), json!({ "previous_response_id": id }));
        let unified =
            json!({ "model": "openai/gpt-4o", "input": format!("and on {number}"), "previous_response_id": id });
        for (path, body) in [(path, &next), ("/v1/responses", &unified)] {
            let answer = post(node, &alpha, path, body);
            assert_eq!((answer.status(), &key(&answer)), (200, home), "{}", answer.text());
            refused(&post(node, &beta, path, body));
        }
        let stored = format!("{path}/{id}");
        assert_eq!(&served(&get(node, &alpha, &stored)).1, home);
        refused(&get(node, &beta, &stored));
    }
    let answer = post(node, &alpha, path, &ask("a part", json!({})));
    let (item, home) = (answer.json()["output"][0]["id"].clone(), key(&answer));
    let part = json!({ "model": "gpt-4o", "input": [{ "type": "item_reference", "id": item }] });
    for _ in 0..OFTEN {
        assert_eq!(key(&post(node, &alpha, path, &part)), home);
    }
    refused(&post(node, &beta, path, &part));
    let two = json!({ "model": "gpt-4o", "previous_response_id": homes[0].0,
        "input": [{ "type": "item_reference", "id": homes[1].0 }] });
    let answer = post(node, &alpha, path, &two);
    assert_eq!((answer.status(), answer.code().as_str()), (400, "bad_request"), "{}", answer.text());

    // What is not stored can be named by nobody.
    let forgotten = served(&post(node, &alpha, path, &ask("forget", json!({ "store": false })))).0;
    refused(&post(node, &alpha, path, &ask("remember?", json!({ "previous_response_id": forgotten }))));

    // Its key is the only one: no other is tried in its place.
    let (id, home) = &homes[0];
    let answer = stack.rest().patch(&format!("/provider-keys/{home}"), &json!({ "enabled": false }));
    assert_eq!(answer["enabled"], false, "{answer}");
    let answer = post(node, &alpha, path, &ask("go on", json!({ "previous_response_id": id })));
    assert_eq!((answer.status(), answer.code().as_str()), (503, "no_key_available"), "{}", answer.text());
    assert_eq!(post(node, &alpha, path, &ask("go on", json!({}))).status(), 200);
}

#[test]
fn who_made_what_outlives_the_node_and_is_known_on_others() {
    let (mut stack, alpha, beta) = house();
    let mut second = Service::node("second", stack.folder.path());
    second.spec.set("--private-upstreams", "127.0.0.0/8:*");
    enroll(&stack.control, &mut second);
    second.start();
    stack.wait_ready(&second);
    let (file, home) = upload(stack.data(), &alpha, "durable");
    let path = format!("/v1/openai/files/{file}");
    let there = second.address("data");
    let status = |node: SocketAddr, bot: &Bot| get(node, bot, &path).status();
    until_good("the other node to know", SOON, || status(there, &alpha), |status| *status == 200);
    assert_eq!(served(&get(there, &alpha, &path)).1, home);
    refused(&get(there, &beta, &path));

    let (latest, _) = upload(stack.data(), &alpha, "just before the end");
    stack.node.kill();
    stack.node.start();
    let node = stack.data();
    for path in [path.clone(), format!("/v1/openai/files/{latest}")] {
        let answer = until("the new process to know", SOON, || {
            let answer = get(node, &alpha, &path);
            (answer.status() == 200).then_some(answer)
        });
        assert_eq!(key(&answer), home, "what one bot makes is in one account");
        refused(&get(node, &beta, &path));
    }

    // Without the control plane what is known is served, and nothing is guessed.
    stack.control.kill();
    let (fresh, _) = upload(node, &alpha, "meanwhile");
    let fresh = format!("/v1/openai/files/{fresh}");
    for path in [&path, &fresh] {
        assert_eq!(served(&get(node, &alpha, path)).1, home);
        refused(&get(node, &beta, path));
    }
    for (node, path) in [(node, "/v1/openai/files/file-1"), (there, &fresh)] {
        let before = stack.mock.requests();
        let answer = get(node, &alpha, path);
        assert_eq!((answer.status(), answer.code().as_str()), (503, "not_configured"), "{}", answer.text());
        assert_eq!(stack.mock.requests(), before, "never forwarded");
    }
    stack.control.start();
    until_good("word of it to get round", SOON, || get(there, &alpha, &fresh).status(), |status| *status == 200);
    refused(&get(there, &beta, &fresh));
    second.terminate();
}
