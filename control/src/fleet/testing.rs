//! A control plane without its REST side, for tests.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clawgate_shared::clock;
use clawgate_shared::seal::SecretBinding;
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::{Fleet, FleetOptions};
use crate::config::ContainerConfig;
use crate::runtime::Runtime;
use crate::runtime::subnet::BotPool;
use crate::store::bot_tokens::{self, BotTokenRow};
use crate::store::bots::{self, BotRow, Limits};
use crate::store::provider_keys::{self, ProviderKeyRow};
use crate::store::tenants::{self, TenantRow};
use crate::store::types::{
    Adapter, BotIncludeUsage, BotStatus, DesiredState, KeyOptions, KeyStatus, KeyStrategy, OnDisconnect, TenantState,
};
use crate::store::{Db, Tx, migrate, revisions};
use crate::vault::{NewSecret, Vault};

pub(crate) const BINDING: SecretBinding<'static> = SecretBinding {
    tenant_id: "ten_1",
    key_id: "key_1",
    vendor: "openai",
    origin: "https://api.openai.com:443",
    secret_version: 1,
};
pub(crate) const SECRET: &str = "sk-canary-0123456789";

/// Ends its background tasks when dropped.
pub(crate) struct Plane {
    dir: tempfile::TempDir,
    pub(crate) db: Db,
    pub(crate) vault: Arc<Vault>,
    pub(crate) fleet: Arc<Fleet>,
    stop: watch::Sender<bool>,
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

impl Plane {
    /// With one tenant, one bot and one provider key.
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let db = Db::connect(&format!("sqlite://{}", dir.path().join("c.db").display())).await.expect("opens");
        migrate::run(&db, None).await.expect("migrates");
        let vault = Vault::open(&db, None, &dir.path().join("master.key")).await.expect("vault");
        let (stop, stopped) = watch::channel(false);
        let mut tx = db.begin().await.expect("begins");
        rows(&mut tx, &vault).await;
        revisions::bump(&mut tx).await.expect("bumps");
        tx.commit().await.expect("commits");
        let fleet = open(&db, &vault).await;
        fleet.start(stopped);
        Self { dir, db, vault, fleet, stop }
    }

    /// The same database, as another process of the control plane sees it.
    pub(crate) async fn again(&self) -> Arc<Fleet> {
        open(&self.db, &self.vault).await
    }

    /// Bots that we run, of this database.
    pub(crate) async fn runtime(&self) -> Arc<Runtime> {
        let patience = Duration::from_secs(5);
        let config = ContainerConfig { pool: BotPool::default(), pull_timeout: patience, start_timeout: patience };
        Runtime::open(self.db.clone(), self.vault.clone(), config).await.expect("opens")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn stop(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Ends what was started with [`Self::stop`].
    pub(crate) fn shut_down(&self) {
        self.stop.send_replace(true);
    }

    /// A config write: the bot is told to be `name`; answers with the revision.
    pub(crate) async fn rename_bot(&self, name: &str) -> u64 {
        let mut tx = self.db.begin().await.expect("begins");
        let mut bot = bots::all(&mut tx).await.expect("reads").remove(0);
        bot.hostname = name.into();
        assert!(bots::update(&mut tx, &bot).await.expect("writes"));
        let revision = revisions::bump(&mut tx).await.expect("bumps").revision;
        tx.commit().await.expect("commits");
        self.fleet.config_changed();
        revision
    }

    /// A config write that changes nothing that nodes are told.
    pub(crate) async fn bump(&self) -> u64 {
        let mut tx = self.db.begin().await.expect("begins");
        let revision = revisions::bump(&mut tx).await.expect("bumps").revision;
        tx.commit().await.expect("commits");
        self.fleet.config_changed();
        revision
    }
}

async fn open(db: &Db, vault: &Arc<Vault>) -> Arc<Fleet> {
    let options =
        FleetOptions { server_names: Vec::new(), max_config_age: Duration::from_secs(86_400), test_poison: false };
    Fleet::open(db.clone(), Arc::clone(vault), options).await.expect("opens")
}

async fn rows(tx: &mut Tx, vault: &Vault) {
    let now = clock::now_micros();
    let tenant = TenantRow {
        id: "ten_1".into(),
        slug: "acme".into(),
        name: "Acme".into(),
        state: TenantState::Active,
        time_zone: "UTC".into(),
        limits: Default::default(),
        version: 1,
        created_at: now,
        updated_at: now,
    };
    tenants::insert(tx, &tenant).await.expect("tenant");
    bots::insert(tx, &bot(now)).await.expect("bot");
    let token = BotTokenRow {
        id: "tok_1".into(),
        bot_id: "bot_1".into(),
        name: String::new(),
        sha256: vec![7; 32],
        last4: "abcd".into(),
        expires_at: None,
        revoked_at: None,
        created_at: now,
        network: None,
    };
    bot_tokens::insert(tx, &token).await.expect("token");
    let secret = NewSecret::parse(Zeroizing::new(SECRET.into())).expect("printable");
    let key = ProviderKeyRow {
        id: BINDING.key_id.into(),
        tenant_id: "ten_1".into(),
        project_id: None,
        vendor: BINDING.vendor.into(),
        label: "main".into(),
        tags: vec!["a".into()],
        base_url: None,
        origin: BINDING.origin.into(),
        sealed: Some(vault.seal_secret(&BINDING, &secret).expect("seals")),
        secret_version: BINDING.secret_version,
        last4: "6789".into(),
        fingerprint: String::new(),
        status: KeyStatus::Active,
        status_reason: String::new(),
        weight: 1,
        priority: 0,
        max_concurrency: 0,
        options: KeyOptions::default(),
        enabled: true,
        version: 1,
        created_at: now,
        updated_at: now,
    };
    provider_keys::insert(tx, &key).await.expect("key");
}

pub(crate) fn bot(now: i64) -> BotRow {
    BotRow {
        id: "bot_1".into(),
        tenant_id: "ten_1".into(),
        project_id: None,
        hostname: "alpha".into(),
        name: "Alpha".into(),
        owner: "bootstrap".into(),
        labels: [("team".to_owned(), "red".to_owned())].into(),
        tags: vec!["a".into()],
        allowed_vendors: Vec::new(),
        allowed_models: Vec::new(),
        model_aliases: [("fast".to_owned(), "openai/gpt-4o-mini".to_owned())].into(),
        fallbacks: std::collections::BTreeMap::new(),
        key_strategy: KeyStrategy::RoundRobin,
        on_disconnect: OnDisconnect::Cancel,
        default_max_tokens: None,
        include_usage: BotIncludeUsage::Auto,
        permissions: Vec::new(),
        quotas: Vec::new(),
        limits: Limits::default(),
        adapter: Adapter::External,
        image: None,
        resources: None,
        template: None,
        desired_state: DesiredState::Running,
        status: BotStatus::External,
        status_reason: String::new(),
        status_since: now,
        enabled: true,
        suspended: false,
        version: 1,
        created_at: now,
        updated_at: now,
        container: None,
    }
}
