//! The store's contract: one story on both databases.
//!
//! Every statement of the store is executed and every row decoded on SQLite and
//! on a real PostgreSQL, because a statement that one engine takes may still
//! give the other one a type that does not decode.

#[path = "store_contract/account_ids.rs"]
mod account_ids;
#[path = "store_contract/config.rs"]
mod config;
#[path = "store_contract/containers.rs"]
mod containers;
#[path = "store_contract/fleet.rs"]
mod fleet;
#[path = "store_contract/prices.rs"]
mod prices;
#[path = "store_contract/quotas.rs"]
mod quotas;
#[path = "store_contract/schema.rs"]
mod schema;
#[path = "store_contract/tokens.rs"]
mod tokens;
#[path = "store_contract/usage.rs"]
mod usage;

use std::path::Path;
use std::sync::Arc;

use clawgate_control::domain::egress::PrivateUpstreams;
use clawgate_control::domain::{Domain, bootstrap};
use clawgate_control::runtime::subnet::BotPool;
use clawgate_control::store::{Db, StoreError, migrate};
use clawgate_control::vault::Vault;
use clawgate_tests::postgres::Postgres;

/// A migrated database with its vault.
async fn house(url: &str, dir: &Path) -> Domain {
    let db = Db::connect(url).await.expect("opens");
    migrate::run(&db, Some(&dir.join("backups"))).await.expect("migrates");
    let vault = Vault::open(&db, None, &dir.join("master.key")).await.expect("vault");
    Domain { db, vault, upstreams: Arc::new(PrivateUpstreams::loopback()), pool: BotPool::default() }
}

async fn story(url: &str) {
    let dir = tempfile::tempdir().expect("directory");
    schema::migrations_are_forward_only(url).await;
    let domain = house(url, dir.path()).await;
    schema::values_round_trip(&domain.db).await;
    let tenant = bootstrap::ensure_default_tenant(&domain).await.expect("default tenant");
    config::tenants_and_projects(&domain).await;
    config::provider_keys(&domain, &tenant.id).await;
    config::custom_vendors(&domain, &tenant.id).await;
    config::bots(&domain, &tenant.id).await;
    tokens::bot_tokens(&domain, &tenant.id).await;
    tokens::api_tokens(&domain, &tenant.id).await;
    tokens::idempotent_answers(&domain).await;
    prices::layers_and_history(&domain, &tenant.id).await;
    usage::ingest_and_queries(&domain, &tenant.id).await;
    containers::wanted_and_seen(&domain, &tenant.id).await;
    account_ids::makers(&domain, &tenant.id).await;
    quotas::ledger(&domain, &tenant.id).await;
    quotas::many_at_once(&domain).await;
    fleet::nodes_and_enrolment(&domain).await;
    config::audit(&domain).await;
    schema::writers_wait_for_each_other(&domain.db).await;
    domain.db.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite() {
    let dir = tempfile::tempdir().expect("directory");
    // A path with characters that mean something in a URL.
    story(&format!("sqlite://{}", dir.path().join("c law%20?.db").display())).await;
    quotas::bots_quotas_move_into_their_table(&format!("sqlite://{}", dir.path().join("old.db").display())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres() {
    let Some(server) = Postgres::start() else { return };
    story(&server.database()).await;
    quotas::bots_quotas_move_into_their_table(&server.database()).await;
}

#[tokio::test]
async fn a_sqlite_file_is_private_and_copied_before_it_is_migrated() {
    schema::sqlite_file(tempfile::tempdir().expect("directory").path()).await;
}

#[tokio::test]
async fn a_server_that_is_away_is_unavailable_and_not_merely_busy() {
    let dir = tempfile::tempdir().expect("directory");
    let socket = dir.path().display().to_string().replace('/', "%2F");
    let refused = Db::connect(&format!("postgres://nobody@localhost/none?host={socket}")).await.expect_err("away");
    assert!(matches!(refused, StoreError::Unavailable(_)), "{refused}");
    let missing = format!("sqlite://{}", dir.path().join("no/such/directory/c.db").display());
    let refused = Db::connect(&missing).await.expect_err("no directory");
    assert!(matches!(refused, StoreError::Unavailable(_)), "{refused}");
}

#[tokio::test]
async fn a_locked_database_says_so_and_the_next_write_succeeds() {
    schema::sqlite_locked(tempfile::tempdir().expect("directory").path()).await;
}
