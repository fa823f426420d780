//! One HTTP/2 connection on pingora's accept loop, with the deadlines that the
//! loop does not have: a connection without a request is closed like an
//! HTTP/1 one, before its first request as well as between two.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp as _};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::{ServerSession, v2::server::H2Options};
use pingora_core::server::ShutdownWatch;

use super::gateway::Gateway;

/// Streams one connection may have open.
const STREAMS: u32 = 100;
/// Headers of one request, in bytes.
const HEADERS: u32 = 64 << 10;
/// Without any stream.
const IDLE: Duration = Duration::from_secs(75);

static OPTIONS: LazyLock<HttpServerOptions> = LazyLock::new(|| {
    let mut options = HttpServerOptions::default();
    options.h2_idle_timeout = Some(IDLE);
    options
});

/// Serves a connection to its end; one that brings no whole request head within
/// `first` is closed.
pub(super) async fn serve(gateway: Arc<Gateway>, stream: Stream, first: Duration, shutdown: &ShutdownWatch) {
    let connection = Arc::new(Connection { gateway, asked: AtomicBool::new(false) });
    let served = connection.process_new(stream, shutdown);
    tokio::pin!(served);
    let early = tokio::select! {
        _ = &mut served => return,
        () = tokio::time::sleep(first) => !connection.asked.load(Ordering::Acquire),
    };
    if !early {
        served.await;
    }
}

struct Connection {
    gateway: Arc<Gateway>,
    /// A request has come.
    asked: AtomicBool,
}

#[async_trait]
impl HttpServerApp for Connection {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        self.asked.store(true, Ordering::Release);
        let stopping = *shutdown.borrow();
        let _ = self.gateway.serve(session, stopping).await;
        None
    }

    fn h2_options(&self) -> Option<H2Options> {
        let mut options = pingora_core::protocols::http::v2::server::default_h2_options();
        options.max_concurrent_streams(STREAMS).max_header_list_size(HEADERS);
        Some(options)
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&OPTIONS)
    }
}
