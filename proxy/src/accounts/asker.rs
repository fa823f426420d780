//! Asks the control plane who made something.

use std::time::Duration;

use clawgate_shared::proto::node::FindIdsRequest;
use clawgate_shared::proto::node::account_ids_client::AccountIdsClient;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{Away, Maker};
use crate::quota::ChannelSource;

/// How long a question may take, waiting for its turn included.
const ANSWER: Duration = Duration::from_secs(2);
/// Questions at one time: bots that guess are to be no burden.
const AT_ONCE: usize = 16;

/// The way to the control plane.
pub struct Asker {
    channel: ChannelSource,
    node_id: String,
    turns: Semaphore,
}

impl std::fmt::Debug for Asker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asker").finish_non_exhaustive()
    }
}

impl Asker {
    /// Asks as this node.
    #[must_use]
    pub fn new(channel: ChannelSource, node_id: String) -> Self {
        Self { channel, node_id, turns: Semaphore::new(AT_ONCE) }
    }

    /// Who made each of `ids`, in their order.
    ///
    /// # Errors
    /// There was no answer in time, or none that can be used.
    pub async fn ask(&self, tenant: &str, vendor: &str, ids: &[String]) -> Result<Vec<Option<Maker>>, Away> {
        let request = FindIdsRequest {
            node_id: self.node_id.clone(),
            tenant_id: tenant.to_owned(),
            vendor: vendor.to_owned(),
            ids: ids.to_vec(),
        };
        let channel = (self.channel)().ok_or(Away)?;
        let answered = timeout(ANSWER, async {
            let _turn = self.turns.acquire().await.ok();
            AccountIdsClient::new(channel).find(request).await
        });
        let reply = match answered.await {
            Ok(Ok(reply)) => reply.into_inner(),
            Ok(Err(status)) => {
                tracing::warn!(code = ?status.code(), message = status.message(), "who made an id could not be asked");
                return Err(Away);
            }
            Err(_) => {
                tracing::warn!("the control plane did not say in time who made an id");
                return Err(Away);
            }
        };
        if reply.makers.len() != ids.len() {
            return Err(Away);
        }
        let known = |maker: &clawgate_shared::proto::node::IdMaker| {
            !maker.bot_id.is_empty() && !maker.provider_key_id.is_empty()
        };
        let makers = reply.makers.into_iter();
        Ok(makers.map(|maker| known(&maker).then(|| Maker::new(&maker.bot_id, &maker.provider_key_id))).collect())
    }
}
