//! What a vendor made in its account is written down before the bot is told of
//! it: a node that is killed between the two would leave it to nobody.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use clawgate_proxy::exchange::{BodyError, Downstream, Gone, Head, Held, Length, run};
use clawgate_proxy::metering::Spool;
use clawgate_shared::proto::node::{self as wire, usage_record::Kind};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use prost::Message as _;

use crate::support::{Options, TOKEN, Vendor, services};

const WHOLE: &str = r#"{"id":"resp_1","object":"response","output":[{"id":"msg_1"}],"usage":{"input_tokens":1,"output_tokens":1,"total_tokens":2}}"#;
const BEGUN: &str =
    "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_1\"}}\n\n";
const ITEM: &str = "event: response.output_item.added\ndata: {\"type\":\"response.output_item.added\",\"item\":{\"id\":\"msg_1\"}}\n\n";

/// A bot that looks into the node's spool whenever it is told something.
struct Looking {
    spool: Arc<Spool>,
    told: String,
    /// Of which ids it was told.
    seen: BTreeSet<String>,
}

impl Looking {
    /// Ids that records of exchanges name which have not ended.
    fn written(&self) -> BTreeSet<String> {
        // Only what is on disk is read.
        self.spool.sync();
        let logs = self.spool.pending();
        let records = logs.iter().flat_map(|log| log.read(1 << 20, 1 << 30).expect("reads").records);
        let kinds = records.map(|record| wire::UsageRecord::decode(&record[..]).expect("a record").kind);
        kinds.flat_map(|kind| if let Some(Kind::Open(open)) = kind { open.made_ids } else { Vec::new() }).collect()
    }
}

impl Downstream for Looking {
    fn take_head(&mut self) -> Head {
        let mut headers = HeaderMap::new();
        let token = HeaderValue::from_str(&format!("Bearer {TOKEN}")).expect("a value");
        headers.insert("authorization", token);
        headers.insert("content-length", HeaderValue::from(26));
        Head { method: Method::POST, uri: "/v1/openai/responses".parse().expect("a path"), headers, source: None }
    }

    async fn read_body(&mut self, _limit: usize, held: &mut Held<'_>) -> Result<Bytes, BodyError> {
        let body = r#"{"model":"m","input":"hi"}"#;
        assert!(held.grow(body.len()));
        Ok(body.into())
    }

    async fn write_head(&mut self, status: StatusCode, _: HeaderMap, _: Length) -> Result<(), Gone> {
        assert_eq!(status, StatusCode::OK);
        Ok(())
    }

    async fn write_chunk(&mut self, chunk: Bytes) -> Result<(), Gone> {
        self.told.push_str(&String::from_utf8_lossy(&chunk));
        let named = ["resp_1", "msg_1"].into_iter().filter(|id| self.told.contains(&format!("\"id\":\"{id}\"")));
        self.seen.extend(named.map(str::to_owned));
        let written = self.written();
        assert!(self.seen.is_subset(&written), "told of {:?}, but {written:?} is written down", self.seen);
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), Gone> {
        Ok(())
    }

    async fn hung_up(&mut self) {
        std::future::pending::<()>().await;
    }

    async fn read_upgraded(&mut self) -> Option<Bytes> {
        None
    }

    fn abort(&mut self) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_written_down_before_its_bot_is_told() {
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    for answer in [
        format!("content-type: application/json\r\ncontent-length: {}\r\n\r\n{WHOLE}", WHOLE.len()),
        format!("content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n{}0\r\n\r\n", chunk(WHOLE)),
        format!(
            "content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n{}{}0\r\n\r\n",
            chunk(BEGUN),
            chunk(ITEM)
        ),
    ] {
        let answer: &'static str = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n{answer}").leak();
        let vendor = Vendor::fixed(answer).await;
        let dir = tempfile::tempdir().expect("a directory");
        let services = services(vendor.address, &Options::default(), dir.path());
        let mut bot = Looking { spool: services.spool.clone(), told: String::new(), seen: BTreeSet::new() };
        run(&services, &mut bot).await;
        assert_eq!(bot.seen.len(), 2, "{}", bot.told);
    }
}
