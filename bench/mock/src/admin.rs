//! The endpoints below `/__mock/`: reading and resetting the ledger, rules.
//! They are not recorded themselves.

use serde_json::json;

use crate::answer::{Answer, Bill};
use crate::http::{Request, Shared};

/// Answers `/__mock/{name}`.
pub(crate) fn answer(shared: &Shared, request: &Request<'_>, name: &str) -> Answer {
    let ledger = &shared.config.ledger;
    let body = match (request.head.method, name) {
        ("GET", "health") => json!({"status": "ok"}),
        ("GET", "ledger") => ledger.summary(),
        ("GET" | "POST", "flush") => match ledger.flush() {
            Ok(()) => json!({"flushed": true}),
            Err(cause) => return refuse(500, &cause.to_string()),
        },
        ("GET", "inflight") => {
            let open: Vec<_> = ledger
                .open_requests()
                .into_iter()
                .map(|(sequence, id)| json!({"seq": sequence, "request_id": id}))
                .collect();
            json!({"inflight": ledger.totals().inflight, "requests": open})
        }
        ("POST", "reset") => {
            ledger.reset();
            shared.rules.clear();
            json!({"reset": true})
        }
        ("POST", "rules") => match shared.rules.add(&request.body) {
            Ok(()) => json!({"added": true}),
            Err(cause) => return refuse(400, &cause.to_string()),
        },
        ("DELETE", "rules") => {
            shared.rules.clear();
            json!({"cleared": true})
        }
        _ => return refuse(404, "GET health, ledger, flush, inflight; POST reset, rules; DELETE rules"),
    };
    Answer::json(200, &body, Bill::default())
}

fn refuse(status: u16, message: &str) -> Answer {
    Answer::json(status, &json!({"error": message}), Bill::default())
}
