//! One HTTP/2 connection on pingora's accept loop, with the deadlines that the
//! loop does not have: a connection without a request is closed like an
//! HTTP/1 one, before its first request as well as between two.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp as _};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::{ServerSession, v2::server::H2Options};
use pingora_core::server::ShutdownWatch;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::gateway::Gateway;
use crate::limits::Level;

/// Streams one connection may have open.
const STREAMS: u32 = 100;
/// Headers of one request, in bytes.
const HEADERS: u32 = 64 << 10;
/// Of one answer, what is kept for a client whose connection takes nothing.
const SEND_BUFFER: usize = 64 << 10;
/// Streams a client may have reset before they were looked at; then the
/// connection ends.
const UNSEEN_RESETS: usize = 20;
/// Streams we may reset for a client's errors; then the connection ends.
const FAULTY: usize = 100;
/// Streams a client may open and give up before their answer, beyond those that
/// it let come to an end; then it is told to go and the connection is closed.
const ABANDONED: usize = 100;
/// How long such a client has to read that.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How often it is looked whether memory allows further streams.
const LOOK: Duration = Duration::from_secs(5);
/// Without any stream.
const IDLE: Duration = Duration::from_secs(75);

static OPTIONS: LazyLock<HttpServerOptions> = LazyLock::new(|| {
    let mut options = HttpServerOptions::default();
    options.h2_idle_timeout = Some(IDLE);
    options
});

/// Serves a connection to its end; one that brings no whole request head within
/// `first` is closed. When the node stops, or memory is short, the client is told
/// to open no further stream here (GOAWAY).
pub(super) async fn serve(gateway: Arc<Gateway>, stream: Stream, first: Duration, shutdown: &ShutdownWatch) {
    let connection = Arc::new(Connection {
        gateway: gateway.clone(),
        asked: AtomicBool::new(false),
        abandoned: AtomicUsize::new(0),
        enough: Notify::new(),
    });
    let (go_away, told) = watch::channel(false);
    let served = connection.process_new(stream, &told);
    tokio::pin!(served);
    let mut shutdown = shutdown.clone();
    let mut looks = tokio::time::interval(LOOK);
    let mut first = std::pin::pin!(tokio::time::sleep(first));
    let (mut waiting, mut stopping, mut last) = (true, false, None);
    while last.is_none_or(|until| Instant::now() < until) {
        tokio::select! {
            _ = &mut served => return,
            () = &mut first, if waiting => {
                if !connection.asked.load(Ordering::Acquire) {
                    return;
                }
                waiting = false;
            }
            _ = shutdown.wait_for(|stopping| *stopping), if !stopping => stopping = true,
            _ = looks.tick(), if !stopping => stopping = gateway.pressure().level() >= Level::Close,
            () = connection.enough.notified(), if last.is_none() => {
                (stopping, last) = (true, Some(Instant::now() + LAST_WORDS));
            }
            () = tokio::time::sleep(LAST_WORDS), if last.is_some() => {}
        }
        go_away.send_if_modified(|told| std::mem::replace(told, stopping) != stopping);
    }
}

struct Connection {
    gateway: Arc<Gateway>,
    /// A request has come.
    asked: AtomicBool,
    /// Streams that were given up, less those that were not.
    abandoned: AtomicUsize,
    enough: Notify,
}

impl Connection {
    /// Keeps the account of streams that came to nothing.
    fn ended(&self, answered: bool) {
        if answered {
            let less = |count: usize| Some(count.saturating_sub(1));
            let _ = self.abandoned.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        } else if self.abandoned.fetch_add(1, Ordering::Relaxed) >= ABANDONED {
            self.enough.notify_one();
        }
    }
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
        let answered = self.gateway.serve(Box::new(session), stopping, false).await.answered;
        self.ended(answered);
        None
    }

    fn h2_options(&self) -> Option<H2Options> {
        let mut options = pingora_core::protocols::http::v2::server::default_h2_options();
        options.max_concurrent_streams(STREAMS).max_header_list_size(HEADERS).max_send_buffer_size(SEND_BUFFER);
        options.max_pending_accept_reset_streams(UNSEEN_RESETS).max_local_error_reset_streams(Some(FAULTY));
        Some(options)
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&OPTIONS)
    }
}
