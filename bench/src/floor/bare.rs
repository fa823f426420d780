//! The bare loop: `HttpServerApp` and `Connector` of pingora-core, nothing
//! else. FROZEN: do not change it to change a ratio.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use pingora_core::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream};
use pingora_core::connectors::ConnectorOptions;
use pingora_core::connectors::http::Connector;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::server::{Server, ShutdownWatch};
use pingora_core::services::listening::Service;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::{RequestHeader, ResponseHeader};

use super::{KEEPALIVE, Legs, configuration};
use crate::failure::Failure;

/// Seconds an idle client connection is kept.
const IDLE_SECONDS: u64 = 60;
/// Fields that belong to one connection. The framing fields stay: pingora
/// frames the next leg by them.
const HOP_BY_HOP: [&str; 5] = ["connection", "keep-alive", "proxy-connection", "te", "upgrade"];

struct Bare {
    connector: Connector,
    peer: HttpPeer,
    host: String,
}

/// Serves until killed.
pub(super) fn run(legs: &Legs) -> Result<(), Failure> {
    let mut server = Server::new_with_opt_and_conf(None, configuration(legs));
    server.bootstrap();
    let mut service = Service::new("bare".to_owned(), Bare::new(legs.upstream));
    service.add_tcp(&legs.listen.to_string());
    server.add_service(service);
    server.run_forever()
}

impl Bare {
    fn new(upstream: SocketAddr) -> Self {
        Self {
            connector: Connector::new(Some(ConnectorOptions::new(KEEPALIVE))),
            peer: HttpPeer::new(upstream, false, String::new()),
            host: upstream.to_string(),
        }
    }

    /// The request for the next leg.
    fn forward(&self, session: &ServerSession) -> pingora_core::Result<Box<RequestHeader>> {
        let mut request = Box::new(session.req_header().clone());
        for name in HOP_BY_HOP {
            request.remove_header(name);
        }
        request.insert_header(http::header::HOST, self.host.as_str())?;
        Ok(request)
    }

    /// Proxies one request over one upstream session.
    async fn relay(&self, session: &mut ServerSession, upstream: &mut HttpSession) -> pingora_core::Result<()> {
        upstream.write_request_header(self.forward(session)?).await?;
        while let Some(piece) = session.read_request_body().await? {
            upstream.write_request_body(piece, false).await?;
        }
        upstream.finish_request_body().await?;
        upstream.read_response_header().await?;
        let response =
            upstream.response_header().map_or_else(|| ResponseHeader::build(502, None), |head| Ok(head.clone()))?;
        let mut response = Box::new(response);
        for name in HOP_BY_HOP {
            response.remove_header(name);
        }
        session.write_response_header(response).await?;
        while let Some(piece) = upstream.read_response_body().await? {
            session.write_response_body(piece, upstream.response_done()).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl HttpServerApp for Bare {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        _shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        session.set_keepalive(Some(IDLE_SECONDS));
        if !session.read_request().await.ok()? {
            return None;
        }
        let Ok((mut upstream, _reused)) = self.connector.get_http_session(&self.peer).await else {
            let _answered = session.respond_error(502).await;
            return None;
        };
        if self.relay(&mut session, &mut upstream).await.is_err() {
            if session.response_written().is_none() {
                let _answered = session.respond_error(502).await;
            }
            upstream.shutdown().await;
            return None;
        }
        self.connector.release_http_session(upstream, &self.peer, None).await;
        let settings = HttpPersistentSettings::for_session(&session);
        let reusable = session.finish().await.ok()??;
        Some(ReusedHttpStream::from_reusable_stream(reusable, settings))
    }
}
