//! A bare `pingora-proxy`: `ProxyHttp` with an upstream and nothing else.

use async_trait::async_trait;
use pingora_core::server::Server;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

use super::{Legs, configuration};
use crate::failure::Failure;

struct Plain {
    peer: HttpPeer,
}

#[async_trait]
impl ProxyHttp for Plain {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut Self::CTX) -> pingora_core::Result<Box<HttpPeer>> {
        Ok(Box::new(self.peer.clone()))
    }
}

/// Serves until killed.
pub(super) fn run(legs: &Legs) -> Result<(), Failure> {
    let mut server = Server::new_with_opt_and_conf(None, configuration(legs));
    server.bootstrap();
    let plain = Plain { peer: HttpPeer::new(legs.upstream, false, String::new()) };
    let mut service = http_proxy_service(&server.configuration, plain);
    service.add_tcp(&legs.listen.to_string());
    server.add_service(service);
    server.run_forever()
}
