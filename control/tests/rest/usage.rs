//! Usage: what the rollups say is what the events say, in the tenant's calendar.

use clawgate_control::ingest;
use clawgate_control::store::usage_ingest::{EventRow, OpenRow, Shard};
use clawgate_shared::{clock, id};
use serde_json::{Value, json};

use crate::common::Control;

fn at(text: &str) -> i64 {
    clock::parse_rfc3339(text).expect("instant")
}

struct Who<'a> {
    tenant: &'a str,
    bot: &'a str,
    project: &'a str,
}

fn event(who: &Who<'_>, time: &str, model: &str, outcome: &str, tokens: (i64, i64)) -> EventRow {
    let ok = outcome == "ok";
    EventRow {
        open: OpenRow {
            exchange_id: id::new(id::Kind::Exchange),
            created_at: at(time),
            tenant_id: who.tenant.into(),
            project_id: who.project.into(),
            bot_id: who.bot.into(),
            vendor: if model.starts_with("claude") { "anthropic" } else { "openai" }.into(),
            model: model.into(),
            endpoint: "/v1/chat/completions".into(),
            client_request_id: format!("client-{time}"),
            provider_key_id: "key_1".into(),
            stream: true,
            agent_id: "agent-1".into(),
            ..OpenRow::default()
        },
        labels: json!({"team": if ok { "a" } else { "b" }}).to_string(),
        status_code: if ok { 200 } else { 502 },
        outcome: outcome.into(),
        error_code: if ok { "" } else { "upstream_connect" }.into(),
        input_tokens: ok.then_some(tokens.0),
        cached_input_tokens: ok.then_some(0),
        output_tokens: ok.then_some(tokens.1),
        total_tokens: ok.then_some(tokens.0 + tokens.1),
        cost_micros: ok.then_some(tokens.0 * 5_000),
        price_ref: if ok { "builtin/openai/gpt-4o@2026-11-21".into() } else { String::new() },
        usage_source: if ok { "upstream" } else { "none" }.into(),
        tried: json!([{"key": "key_1", "status": 200, "reason": "", "ms": 5}]).to_string(),
        duration_micros: 10_500,
        ttft_micros: Some(2_000),
        ..EventRow::default()
    }
}

async fn write(control: &Control, mut events: Vec<EventRow>) {
    let db = control.db().await;
    let mut tx = db.begin().await.expect("transaction");
    for (position, event) in (0..).zip(&mut events) {
        event.open.position = position;
    }
    let shard = Shard { node_id: "node_1", epoch: 1, shard: 0 };
    ingest::add_events(&mut tx, db.usage_dims(), shard, &events, clock::now_micros()).await.expect("events");
    tx.commit().await.expect("commit");
    db.close().await;
}

/// What the samples cost: 5,000 micro-dollars per token that went in.
#[allow(clippy::cast_precision_loss)]
fn dollars(input_tokens: i64) -> f64 {
    (input_tokens * 5_000) as f64 / 1e6
}

fn numbers(value: &Value) -> [i64; 4] {
    ["requestCount", "errorCount", "requestTokens", "responseTokens"].map(|name| value[name].as_i64().expect("number"))
}

#[tokio::test]
async fn rollups_and_events_give_the_same_sums_in_every_zone() {
    let control = Control::start().await;
    for (slug, zone) in [("utc", "UTC"), ("shanghai", "Asia/Shanghai"), ("kolkata", "Asia/Kolkata")] {
        let tenant = control.create("/tenants", json!({"slug": slug, "time_zone": zone})).await;
        let call = |method: &str, path: &str| control.call(method, path).header("x-clawgate-tenant", slug);
        let project = call("POST", "/projects").json(&json!({"slug": "p"})).send().await.ok(201);
        let bot = call("POST", "/bots").json(&json!({"hostname": "b"})).send().await.ok(201);
        let who = Who {
            tenant: tenant["id"].as_str().expect("id"),
            bot: bot["id"].as_str().expect("id"),
            project: project["id"].as_str().expect("id"),
        };
        // 20:00Z on the 10th is the 11th in Shanghai and Kolkata; 18:15Z and
        // 18:45Z are on either side of midnight in Kolkata.
        write(
            &control,
            vec![
                event(&who, "2025-03-10T12:00:00Z", "gpt-4o", "ok", (100, 10)),
                event(&who, "2025-03-10T18:15:00Z", "gpt-4o", "ok", (200, 20)),
                event(&who, "2025-03-10T18:45:00Z", "gpt-4o", "failed", (0, 0)),
                event(&who, "2025-03-10T20:00:00Z", "claude-x", "ok", (400, 40)),
                event(&who, "2025-03-10T20:00:00Z", "claude-x", "client_disconnect", (0, 0)),
                event(&who, "2025-03-11T23:00:00Z", "gpt-4o", "ok", (800, 80)),
            ],
        )
        .await;
        let wanted = match slug {
            "utc" => [[5, 1, 700, 70], [1, 0, 800, 80]],
            "shanghai" => [[1, 0, 100, 10], [4, 1, 600, 60]],
            _ => [[2, 0, 300, 30], [3, 1, 400, 40]],
        };
        let get = |path: String| {
            let call = call("GET", &path);
            async move { call.send().await.ok(200) }
        };
        for (day, wanted) in [("2025-03-10", wanted[0]), ("2025-03-11", wanted[1])] {
            let stats = get(format!("/bots/b/usage/stats?startDate={day}")).await;
            assert_eq!(numbers(&stats), wanted, "{slug} {day}");
            assert_eq!(stats["totalTokens"], wanted[2] + wanted[3]);
            assert_eq!(stats["avgDurationMs"], 10.5);
            assert_eq!(stats["estimatedCost"].as_f64(), Some(dollars(wanted[2])), "{slug} {day}");
        }
        let trend = get("/usage/trend?granularity=day&startDate=2025-03-09&endDate=2025-03-12".into()).await;
        let points = trend["dataPoints"].as_array().expect("points");
        assert_eq!(points.iter().map(numbers).collect::<Vec<_>>(), [[0; 4], wanted[0], wanted[1]], "{slug}");
        let costs: Vec<_> = points.iter().map(|point| point["estimatedCost"].as_f64()).collect();
        assert_eq!(costs, [0, wanted[0][2], wanted[1][2]].map(|tokens| Some(dollars(tokens))), "{slug}");

        // The same span, whole hours (rollups) and one second less (events).
        for path in ["/usage/stats?bot=b", &format!("/usage/stats?project_id={}", who.project), "/usage/stats?"] {
            let whole = get(format!("{path}&startDate=2025-03-10T00:00:00Z&endDate=2025-03-11T00:00:00Z")).await;
            let part = get(format!("{path}&startDate=2025-03-10T00:00:01Z&endDate=2025-03-11T00:00:00Z")).await;
            assert_eq!(whole, part, "{slug} {path}");
            assert_eq!(numbers(&whole), [5, 1, 700, 70]);
        }
    }
    control.stop().await;
}

/// A tenant with one bot and three exchanges of one morning.
async fn three_exchanges() -> Control {
    let control = Control::start().await;
    let project = control.create("/projects", json!({"slug": "proj"})).await;
    let bot = control.create("/bots", json!({"hostname": "b"})).await;
    let tenant = control.get("/tenants/default").await;
    let who = Who {
        tenant: tenant["id"].as_str().expect("id"),
        bot: bot["id"].as_str().expect("id"),
        project: project["id"].as_str().expect("id"),
    };
    write(
        &control,
        vec![
            event(&who, "2025-03-10T12:00:00Z", "gpt-4o", "ok", (60, 10)),
            event(&who, "2025-03-10T12:00:01Z", "claude-x", "ok", (20, 10)),
            event(&who, "2025-03-10T12:00:02Z", "gpt-4o", "failed", (0, 0)),
        ],
    )
    .await;
    control
}

#[tokio::test]
async fn breakdowns_by_every_dimension() {
    let control = three_exchanges().await;
    for (by, key, count, percentage) in [
        ("vendor", "openai", 2, 70.0),
        ("model", "gpt-4o", 2, 70.0),
        ("status", "200", 2, 100.0),
        ("key", "key_1", 3, 100.0),
        ("bot", "b", 3, 100.0),
        ("project", "proj", 3, 100.0),
        ("label", "team=a", 2, 100.0),
        ("agent", "agent-1", 3, 100.0),
        ("session", "", 3, 100.0),
    ] {
        let path = format!("/bots/b/usage/breakdown?groupBy={by}&startDate=2025-03-10&endDate=2025-03-11");
        let answer = control.get(&path).await;
        let group = &answer["groups"][0];
        let cost: f64 =
            answer["groups"].as_array().into_iter().flatten().filter_map(|g| g["estimatedCost"].as_f64()).sum();
        assert!((cost - dollars(80)).abs() < 1e-9, "{by}: {answer}");
        assert_eq!((group["key"].as_str(), group["requestCount"].as_i64()), (Some(key), Some(count)), "{by}: {answer}");
        assert!((group["percentage"].as_f64().expect("number") - percentage).abs() < 1e-9, "{by}: {answer}");
    }
    // The default is this month, which had none of it.
    assert_eq!(control.get("/usage/breakdown").await["groups"], json!([]));
    control.stop().await;
}

#[tokio::test]
async fn logs_page_filter_and_outlive_their_bot() {
    let control = three_exchanges().await;
    let first = control.get("/usage/logs?limit=2").await;
    assert_eq!((first["has_more"].as_bool(), &first["total"]), (Some(true), &Value::Null));
    let second =
        control.get(&format!("/usage/logs?limit=2&after={}", first["next_cursor"].as_str().expect("cursor"))).await;
    assert_eq!((second["has_more"].as_bool(), &second["next_cursor"]), (Some(false), &Value::Null));
    let rows: Vec<&Value> =
        [&first, &second].into_iter().flat_map(|page| page["data"].as_array().expect("data")).collect();
    let times: Vec<&str> = rows.iter().map(|row| row["created_at"].as_str().expect("time")).collect();
    assert_eq!(times, ["2025-03-10T12:00:02.000000Z", "2025-03-10T12:00:01.000000Z", "2025-03-10T12:00:00.000000Z"]);
    let row = rows[2];
    for (field, value) in [
        ("bot", json!("b")),
        ("project", json!("proj")),
        ("labels", json!({"team": "a"})),
        ("input_tokens", json!(60)),
        ("cached_input_tokens", json!(0)),
        ("cache_write_tokens", json!(null)),
        ("usage_source", json!("upstream")),
        ("duration_ms", json!(10.5)),
        ("ttft_ms", json!(2.0)),
        ("error_code", json!(null)),
        ("session_id", json!(null)),
        ("tried", json!([{"key": "key_1", "status": 200, "reason": "", "ms": 5}])),
    ] {
        assert_eq!(row[field], value, "{field}");
    }
    let one = control.get(&format!("/usage/logs/{}", row["request_id"].as_str().expect("id"))).await;
    assert_eq!(&one, row);
    control.call("GET", "/usage/logs/req_none").send().await.problem(404, "not_found");
    for (filter, count) in [
        ("bot=b", 3),
        ("vendor=openai", 2),
        ("model=claude-x", 1),
        ("status=502", 1),
        ("outcome=ok", 2),
        ("key=key_1", 3),
        ("key=key_2", 0),
        ("from=2025-03-10T12:00:01Z", 2),
        ("to=2025-03-10T12:00:01Z", 1),
        ("bot=b&vendor=openai&outcome=failed", 1),
    ] {
        let page = control.get(&format!("/usage/logs?{filter}")).await;
        assert_eq!(page["data"].as_array().expect("data").len(), count, "{filter}");
    }
    // History outlives its bot and keeps its name.
    assert_eq!(control.call("DELETE", "/bots/b").send().await.status, 204);
    assert_eq!(control.get("/usage/logs").await["data"][0]["bot"], "b");
    let path = "/usage/breakdown?groupBy=bot&startDate=2025-03-10&endDate=2025-03-11";
    assert_eq!(control.get(path).await["groups"][0]["key"], "b");
    control.stop().await;
}

#[tokio::test]
async fn the_tenant_at_a_glance() {
    let control = Control::start().await;
    control.create("/bots", json!({"hostname": "b"})).await;
    control.key("k").await;
    let bot = control.get("/bots/b").await;
    let tenant = control.get("/tenants/default").await;
    let who = Who { tenant: tenant["id"].as_str().expect("id"), bot: bot["id"].as_str().expect("id"), project: "" };
    write(&control, vec![event(&who, &clock::rfc3339(clock::now_micros()), "gpt-4o", "ok", (5, 6))]).await;
    let overview = control.get("/metrics/overview").await;
    assert_eq!((overview["bots"]["total"].as_i64(), overview["provider_keys"].as_i64()), (Some(1), Some(1)));
    for period in ["day", "week", "month"] {
        assert_eq!(numbers(&overview["usage"][period]), [1, 0, 5, 6], "{period}");
        assert_eq!(numbers(&control.get(&format!("/usage/stats?period={period}")).await), [1, 0, 5, 6]);
    }
    assert_eq!(control.get("/metrics/usage").await, overview["usage"]);
    let hours = control.get("/usage/trend?granularity=hour").await;
    let points = hours["dataPoints"].as_array().expect("points");
    assert_eq!((points.len(), numbers(points.last().expect("a point"))), (24, [1, 0, 5, 6]));
    control.stop().await;
}

#[tokio::test]
async fn an_export_holds_every_row_in_both_forms() {
    let control = Control::start().await;
    let bot = control.create("/bots", json!({"hostname": "b"})).await;
    let tenant = control.get("/tenants/default").await;
    let who = Who { tenant: tenant["id"].as_str().expect("id"), bot: bot["id"].as_str().expect("id"), project: "" };
    // More than two batches, several rows of one instant.
    let events = (0..1203).map(|n| {
        let time = format!("2025-03-10T12:{:02}:00Z", n / 40);
        event(&who, &time, if n % 3 == 0 { "=cmd(\"x\"),1" } else { "gpt-4o" }, "ok", (100, 10))
    });
    write(&control, events.collect()).await;

    let answer = control.call("GET", "/usage/export?format=ndjson").send().await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/x-ndjson"));
    let rows: Vec<Value> = answer.text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let ids: std::collections::BTreeSet<&str> = rows.iter().map(|row| row["id"].as_str().expect("id")).collect();
    assert_eq!((rows.len(), ids.len()), (1203, 1203));
    let listed = control.get("/usage/logs?limit=1").await;
    assert_eq!(listed["data"][0], rows[0], "the first line is the newest row");

    let answer = control.call("GET", "/usage/export?bot=b").send().await;
    assert!(answer.header("content-type").starts_with("text/csv"), "{:?}", answer.headers);
    assert_eq!(answer.header("content-disposition"), "attachment; filename=usage.csv");
    let mut lines = answer.text.split("\r\n");
    let head: Vec<&str> = lines.next().expect("head").split(',').collect();
    let fields: Vec<&str> = rows[0].as_object().expect("object").keys().map(String::as_str).collect();
    assert_eq!(head, fields, "a column for every field, in its order");
    assert_eq!(lines.filter(|line| !line.is_empty()).count(), 1203);
    assert!(answer.text.contains("\"'=cmd(\"\"x\"\"),1\"") && !answer.text.contains(",=cmd"));

    let few = control.call("GET", "/usage/export?format=ndjson&to=2025-03-10T12:01:00Z").send().await;
    assert_eq!(few.text.lines().count(), 40);
    let none = control.call("GET", "/usage/export?format=ndjson&vendor=nobody").send().await;
    assert_eq!((none.status, none.text.as_str()), (200, ""));
    let none = control.call("GET", "/usage/export?vendor=nobody").send().await;
    assert_eq!(none.text.matches("\r\n").count(), 1, "the head alone");
    control.call("GET", "/usage/export?format=xlsx").send().await.problem(400, "invalid_parameter");
    control.call("GET", "/usage/export?bot=none").send().await.problem(404, "not_found");
    control.call("GET", "/usage/export?limit=3").send().await.problem(400, "invalid_parameter");
    let stranger = control.create("/api-tokens", json!({"name": "n", "role": "owner", "scopes": ["bot.read"]})).await;
    let stranger = stranger["token"].as_str().expect("token");
    control.as_token(stranger, "GET", "/usage/export").send().await.problem(403, "forbidden");
    control.stop().await;
}
