//! Configuration through the domain, read back through the store.

use std::collections::BTreeMap;

use clawgate_control::domain::bots::{self, BotFields, Drive};
use clawgate_control::domain::provider_keys::{self, NewProviderKey, ProviderKeyPatch, SecretText};
use clawgate_control::domain::{Caller, Domain, DomainError, Permission, Principal, Role, projects, tenants, vendors};
use clawgate_control::store::audit::{self as audit_store, AuditFilter, ChainReport};
use clawgate_control::store::bots::{BotFilter, Limits};
use clawgate_control::store::page::Page;
use clawgate_control::store::provider_keys::KeyFilter;
use clawgate_control::store::types::{BotPermission, BotStatus, DesiredState, QuotaMetric, TenantState};
use clawgate_control::store::{self, StoreError};
use clawgate_shared::seal::{Sealed, SealingKey, SecretBinding};
use serde_json::{Map, json};

pub fn root() -> Caller {
    Caller { principal: Principal::bootstrap(), ip: "127.0.0.1".into(), user_agent: "contract".into() }
}

pub fn member(tenant_id: &str, role: Role, actor: &str) -> Caller {
    let principal = Principal { actor: actor.into(), tenant_id: Some(tenant_id.into()), role, scopes: Vec::new() };
    Caller { principal, ..root() }
}

/// Field and rule of every broken one.
pub fn broken<T: std::fmt::Debug>(result: Result<T, DomainError>) -> Vec<(String, &'static str)> {
    match result {
        Err(DomainError::Invalid { errors }) => errors.into_iter().map(|e| (e.field, e.rule)).collect(),
        other => panic!("wanted broken rules, found {other:?}"),
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, DomainError>) -> &'static str {
    result.expect_err("is refused").code()
}

fn secret(text: &str) -> Option<SecretText> {
    Some(SecretText(zeroize(text)))
}

fn zeroize(text: &str) -> zeroize::Zeroizing<String> {
    zeroize::Zeroizing::new(text.to_owned())
}

pub async fn tenants_and_projects(domain: &Domain) {
    let new = |slug: &str, zone: &str| tenants::NewTenant {
        slug: slug.into(),
        time_zone: Some(zone.into()),
        ..tenants::NewTenant::default()
    };
    let made = tenants::create(domain, &root(), new("acme", "Europe/Berlin")).await.expect("creates");
    let acme = made.value;
    assert_eq!((acme.name.as_str(), acme.version, acme.state), ("acme", 1, TenantState::Active));
    assert_eq!(code(tenants::create(domain, &root(), new("acme", "UTC")).await), "already_exists");
    let found = broken(tenants::create(domain, &root(), new("-x", "Mars/Olympus")).await);
    assert_eq!(found, [("slug".to_owned(), "format"), ("time_zone".to_owned(), "format")]);

    let suspend = tenants::TenantPatch { suspended: Some(true), ..Default::default() };
    let owner = member(&acme.id, Role::Owner, "token:o");
    assert_eq!(code(tenants::update(domain, &owner, &acme.id, suspend.clone(), None).await), "forbidden");
    let patch = tenants::TenantPatch { name: Some("Acme".into()), ..Default::default() };
    let renamed = tenants::update(domain, &owner, &acme.id, patch.clone(), Some(1)).await.expect("renames");
    assert_eq!((renamed.value.version, renamed.revision), (2, made.revision.map(|revision| revision + 1)));
    assert_eq!(code(tenants::update(domain, &owner, &acme.id, patch, Some(1)).await), "precondition_failed");
    let suspended = tenants::update(domain, &root(), &acme.id, suspend, None).await.expect("suspends").value;
    assert_eq!(suspended.state, TenantState::Suspended);

    let project = |slug: &str| projects::NewProject { slug: slug.into(), ..Default::default() };
    let made = projects::create(domain, &owner, &acme.id, project("web")).await.expect("creates").value;
    assert_eq!(code(projects::create(domain, &owner, &acme.id, project("web")).await), "already_exists");
    let place = (acme.id.as_str(), made.id.as_str());
    let patch = projects::ProjectPatch { description: Some("d".into()), ..Default::default() };
    let changed = projects::update(domain, &owner, place, patch, Some(1)).await.expect("changes").value;
    let stranger = member("ten_other", Role::Owner, "token:s");
    assert_eq!(code(projects::delete(domain, &stranger, place, None).await), "not_found");

    let mut conn = domain.db.read().await.expect("reads");
    assert_eq!(store::tenants::get(&mut conn, &acme.id).await.expect("reads"), Some(suspended));
    assert_eq!(
        store::tenants::by_slug(&mut conn, "acme").await.expect("reads").map(|row| row.id),
        Some(acme.id.clone())
    );
    assert!(store::tenants::all(&mut conn).await.expect("reads").len() >= 2);
    let page = Page::new(Some(1), None).expect("page");
    let first = store::tenants::list(&mut conn, &page).await.expect("lists");
    assert_eq!((first.rows.len(), first.has_more, first.total), (1, true, Some(2)));
    let page = Page::new(Some(1), first.next_cursor.as_deref()).expect("page");
    let second = store::tenants::list(&mut conn, &page).await.expect("lists");
    assert!(!second.has_more && second.rows[0].id > first.rows[0].id);
    assert_eq!(store::projects::get(&mut conn, &acme.id, &made.id).await.expect("reads"), Some(changed.clone()));
    assert_eq!(store::projects::all(&mut conn).await.expect("reads"), std::slice::from_ref(&changed));
    let listed = store::projects::list(&mut conn, &acme.id, &Page::default()).await.expect("lists");
    assert_eq!((listed.rows, listed.total), (vec![changed], Some(1)));
    drop(conn);

    assert_eq!(code(tenants::delete(domain, &root(), &acme.id, None).await), "still_in_use");
    projects::delete(domain, &owner, place, None).await.expect("deletes");
    tenants::delete(domain, &owner, &acme.id, None).await.expect("deletes");
    assert_eq!(code(tenants::select(domain, &Principal::bootstrap(), Some("acme")).await), "not_found");
    let default = tenants::select(domain, &Principal::bootstrap(), None).await.expect("default");
    assert_eq!(default.slug, "default");
    let platform = Principal { role: Role::PlatformAdmin, ..Principal::bootstrap() };
    assert_eq!(code(tenants::select(domain, &platform, None).await), "tenant_required");
}

pub async fn provider_keys(domain: &Domain, tenant_id: &str) {
    let admin = member(tenant_id, Role::Admin, "token:a");
    let canary = "sk-canary-provider-key-0123456789";
    let new = || NewProviderKey {
        vendor: "openai".into(),
        label: "main".into(),
        secret: secret(canary),
        tags: vec!["a".into(), "b".into()],
        options: Map::from_iter([("organization".to_owned(), json!("org-1"))]),
        ..NewProviderKey::default()
    };
    let made = provider_keys::create(domain, &admin, tenant_id, new()).await.expect("creates").value;
    assert_eq!((made.origin.as_str(), made.last4.as_str()), ("https://api.openai.com:443", "6789"));
    assert_eq!(code(provider_keys::create(domain, &admin, tenant_id, new()).await), "already_exists");
    let viewer = member(tenant_id, Role::Operator, "token:v");
    assert_eq!(code(provider_keys::create(domain, &viewer, tenant_id, new()).await), "forbidden");
    refused_keys(domain, &admin, tenant_id).await;

    let place = (tenant_id, made.id.as_str());
    let moved =
        || ProviderKeyPatch { base_url: Some(Some("https://eu.api.openai.com/v1".into())), ..Default::default() };
    assert_eq!(code(provider_keys::update(domain, &admin, place, moved(), None).await), "secret_required");
    let patch = ProviderKeyPatch { secret: secret(canary), ..moved() };
    let moved = provider_keys::update(domain, &admin, place, patch, Some(1)).await.expect("moves").value;
    assert_eq!((moved.origin.as_str(), moved.secret_version), ("https://eu.api.openai.com:443", 2));
    assert_eq!(moved.fingerprint, made.fingerprint, "the same secret has the same fingerprint");
    let patch = ProviderKeyPatch { weight: Some(7), tags: Some(vec![]), enabled: Some(false), ..Default::default() };
    let edited = provider_keys::update(domain, &admin, place, patch, None).await.expect("edits").value;
    assert_eq!((edited.weight, edited.enabled, edited.secret_version), (7, false, 2));
    let rotated =
        provider_keys::rotate(domain, &admin, place, secret("sk-another-secret-1").expect("secret"), None).await;
    let rotated = rotated.expect("rotates").value;
    assert_eq!(rotated.secret_version, 3);
    assert_ne!(rotated.fingerprint, made.fingerprint);

    let mut conn = domain.db.read().await.expect("reads");
    let stored = store::provider_keys::get(&mut conn, tenant_id, &made.id).await.expect("reads").expect("there");
    assert_eq!(stored, rotated);
    assert_eq!(store::provider_keys::get(&mut conn, "ten_x", &made.id).await.expect("reads"), None);
    let binding = SecretBinding {
        tenant_id,
        key_id: &stored.id,
        vendor: &stored.vendor,
        origin: &stored.origin,
        secret_version: stored.secret_version,
    };
    let node = SealingKey::generate().expect("random");
    let sealed = stored.sealed.as_ref().expect("sealed");
    let sent = domain.vault.reseal_for_node(&node, &binding, sealed).expect("reseals");
    let opened = Sealed::from_parts(&sent.nonce, &sent.ciphertext).expect("form");
    assert_eq!(node.open(&opened, &binding.aad()).expect("opens").as_slice(), b"sk-another-secret-1");
    assert_eq!(store::provider_keys::all(&mut conn).await.expect("reads").len(), 1);
    let filter = KeyFilter { vendor: Some("anthropic"), project_id: None };
    let none = store::provider_keys::list(&mut conn, tenant_id, filter, &Page::default()).await.expect("lists");
    assert_eq!((none.rows.len(), none.total), (0, Some(0)));
    let all = store::provider_keys::list(&mut conn, tenant_id, KeyFilter::default(), &Page::default()).await;
    assert_eq!(all.expect("lists").rows, [stored]);
    assert_eq!(store::provider_keys::count(&mut conn, tenant_id).await.expect("counts"), 1);
    let moved = store::provider_keys::count_of_vendor(&mut conn, tenant_id, "openai", true).await;
    assert_eq!(moved.expect("counts"), 0, "it has a base URL of its own");
    drop(conn);
    provider_keys::delete(domain, &admin, place, None).await.expect("deletes");
    assert_eq!(code(provider_keys::delete(domain, &admin, place, None).await), "not_found");
}

async fn refused_keys(domain: &Domain, admin: &Caller, tenant_id: &str) {
    let create = async |new: NewProviderKey| broken(provider_keys::create(domain, admin, tenant_id, new).await);
    let base =
        || NewProviderKey { vendor: "openai".into(), label: "x".into(), secret: secret("sk-1"), ..Default::default() };
    let field = |field: &str, rule: &'static str| vec![(field.to_owned(), rule)];
    assert_eq!(create(NewProviderKey { secret: None, ..base() }).await, field("secret", "required"));
    assert_eq!(create(NewProviderKey { secret: secret("a\nb"), ..base() }).await, field("secret", "format"));
    assert_eq!(create(NewProviderKey { vendor: "nobody".into(), ..base() }).await, field("vendor", "exists"));
    assert_eq!(create(NewProviderKey { vendor: "custom".into(), ..base() }).await, field("base_url", "required"));
    for (url, rule) in [
        ("http://api.openai.com/v1", "not_allowed"),
        ("https://10.0.0.1/v1", "not_allowed"),
        ("https://169.254.169.254/", "not_allowed"),
        ("https://user@api.openai.com/", "format"),
        ("ftp://api.openai.com/", "format"),
    ] {
        let found = create(NewProviderKey { base_url: Some(url.into()), ..base() }).await;
        assert_eq!(found, field("base_url", rule), "{url}");
    }
    let many = NewProviderKey {
        label: String::new(),
        tags: vec!["a b".into()],
        weight: Some(0),
        priority: Some(5000),
        project_id: Some("prj_x".into()),
        secret_ref: Some("env:X".into()),
        options: Map::from_iter([
            ("auth".to_owned(), json!("basic")),
            ("include_usage".to_owned(), json!(true)),
            ("colour".to_owned(), json!("red")),
        ]),
        ..base()
    };
    let fields: Vec<String> = create(many).await.into_iter().map(|(field, _)| field).collect();
    let wanted = [
        "secret_ref",
        "options.auth",
        "options.include_usage",
        "options.colour",
        "label",
        "tags[0]",
        "weight",
        "priority",
        "project_id",
    ];
    assert_eq!(fields, wanted);
}

pub async fn custom_vendors(domain: &Domain, tenant_id: &str) {
    let owner = member(tenant_id, Role::Owner, "token:o");
    let new = |slug: &str, base_url: &str| vendors::NewVendor {
        slug: slug.into(),
        base_url: base_url.into(),
        ..Default::default()
    };
    let made = vendors::create(domain, &owner, tenant_id, new("house", "http://127.0.0.1:8000/v1")).await;
    let made = made.expect("creates").value;
    assert_eq!((made.auth.as_str(), made.dialect.as_str()), ("bearer", "openai"));
    let create = async |slug: &str, url: &str| vendors::create(domain, &owner, tenant_id, new(slug, url)).await;
    assert_eq!(broken(create("openai", "https://a.example").await), [("slug".to_owned(), "format")]);
    assert_eq!(broken(create("b", "http://a.example").await), [("base_url".to_owned(), "not_allowed")]);
    assert_eq!(code(create("house", "https://a.example").await), "already_exists");
    let admin = member(tenant_id, Role::Admin, "token:a");
    assert_eq!(code(vendors::create(domain, &admin, tenant_id, new("c", "https://a.example")).await), "forbidden");

    let key = NewProviderKey { vendor: "house".into(), label: "k".into(), secret: secret("s"), ..Default::default() };
    let key = provider_keys::create(domain, &admin, tenant_id, key).await.expect("creates").value;
    assert_eq!(key.origin, "http://127.0.0.1:8000");
    let place = (tenant_id, "house");
    let moved = vendors::VendorPatch { base_url: Some("http://127.0.0.1:9000/v1".into()), ..Default::default() };
    assert_eq!(code(vendors::update(domain, &owner, place, moved.clone(), None).await), "still_in_use");
    let routes = vendors::VendorPatch { routes: Some(vec!["generate".into()]), ..Default::default() };
    vendors::update(domain, &owner, place, routes, Some(1)).await.expect("changes");
    assert_eq!(code(vendors::delete(domain, &owner, place, None).await), "still_in_use");
    provider_keys::delete(domain, &admin, (tenant_id, &key.id), None).await.expect("deletes");
    let moved = vendors::update(domain, &owner, place, moved, None).await.expect("moves").value;

    let mut conn = domain.db.read().await.expect("reads");
    assert_eq!(store::vendors::get(&mut conn, tenant_id, "house").await.expect("reads"), Some(moved.clone()));
    assert_eq!(store::vendors::all(&mut conn).await.expect("reads"), std::slice::from_ref(&moved));
    assert_eq!(store::vendors::list(&mut conn, tenant_id, &Page::default()).await.expect("lists").rows, [moved]);
    assert_eq!(store::vendors::count(&mut conn, tenant_id).await.expect("counts"), 1);
    drop(conn);
    vendors::delete(domain, &owner, place, None).await.expect("deletes");
}

fn whole_bot() -> BotFields {
    BotFields {
        name: Some("Helper \u{1f916}".into()),
        labels: Some(BTreeMap::from([("team".into(), "\u{7ec4}".into())])),
        tags: Some(vec!["a".into()]),
        allowed_vendors: Some(vec!["openai".into(), "anthropic".into()]),
        allowed_models: Some(vec!["gpt-4*".into()]),
        model_aliases: Some(BTreeMap::from([("fast".into(), "openai/gpt-4o-mini".into())])),
        fallbacks: Some(BTreeMap::from([("gpt-4o".into(), vec!["gpt-4o-mini".into()])])),
        key_strategy: Some("sticky".into()),
        on_disconnect: Some("drain".into()),
        default_max_tokens: Some(Some(1024)),
        include_usage: Some("never".into()),
        permissions: Some(vec!["account_resources".into()]),
        quotas: Some(vec![json!({"metric": "total_tokens", "window": "day", "limit": 1000})]),
        limits: Some(Limits { requests_per_minute: Some(60), tokens_per_minute: None, max_concurrency: Some(4) }),
        adapter: Some("generic".into()),
        image: Some(Some("example/bot:1".into())),
        resources: Some(Some(json!({"memory_mb": 256}))),
        template: Some(Some("plain".into())),
        ..BotFields::default()
    }
}

pub async fn bots(domain: &Domain, tenant_id: &str) {
    let admin = member(tenant_id, Role::Admin, "token:a");
    let developer = member(tenant_id, Role::Developer, "token:d");
    let made = bots::create(domain, &admin, tenant_id, "helper".into(), whole_bot()).await.expect("creates");
    let bot = made.value.bot;
    assert_eq!(bot.permissions, [BotPermission::AccountResources]);
    assert_eq!((bot.quotas[0].metric, bot.quotas[0].warn_pct), (QuotaMetric::TotalTokens, 80));
    assert_eq!(bot.status, BotStatus::Pending);
    let again = bots::create(domain, &admin, tenant_id, "helper".into(), BotFields::default()).await;
    assert_eq!(code(again), "already_exists");
    refused_bots(domain, &admin, tenant_id).await;

    let own = bots::create(domain, &developer, tenant_id, "mine".into(), BotFields::default()).await.expect("creates");
    assert_eq!((own.value.bot.owner.as_str(), own.value.bot.status), ("token:d", BotStatus::External));
    let quotas = BotFields { quotas: whole_bot().quotas, ..Default::default() };
    assert_eq!(code(bots::update(domain, &developer, (tenant_id, "mine"), quotas, None).await), "forbidden");
    let rename = || BotFields { name: Some("n".into()), ..Default::default() };
    assert_eq!(code(bots::update(domain, &developer, (tenant_id, "helper"), rename(), None).await), "forbidden");
    assert_eq!(
        code(bots::update(domain, &admin, (tenant_id, "helper"), rename(), Some(9)).await),
        "precondition_failed"
    );
    let stranger = member("ten_other", Role::Owner, "token:a");
    assert_eq!(code(bots::delete(domain, &stranger, (tenant_id, "helper"), None).await), "not_found");
    let clear = BotFields { image: Some(None), resources: Some(None), default_max_tokens: Some(None), ..rename() };
    let changed = bots::update(domain, &admin, (tenant_id, "helper"), clear, Some(1)).await.expect("changes").value;
    assert_eq!((changed.version, changed.image, changed.resources, changed.default_max_tokens), (2, None, None, None));
    let suspended = bots::suspend(domain, &admin, (tenant_id, "helper"), true).await.expect("suspends").value;
    assert!(suspended.suspended);
    assert_eq!(code(bots::drive(domain, &admin, (tenant_id, "mine"), Drive::Start).await), "not_run_by_us");
    let started = bots::drive(domain, &admin, (tenant_id, "helper"), Drive::Start).await.expect("starts").value;
    assert_eq!(started.desired_state, DesiredState::Running);

    let mut conn = domain.db.read().await.expect("reads");
    assert_eq!(store::bots::get(&mut conn, tenant_id, "helper").await.expect("reads"), Some(started.clone()));
    assert_eq!(store::bots::all(&mut conn).await.expect("reads").len(), 2);
    let filter = BotFilter { owner: Some("token:d"), project_id: None };
    let listed = store::bots::list(&mut conn, tenant_id, filter, &Page::default()).await.expect("lists");
    assert_eq!((listed.rows.len(), listed.total, listed.rows[0].hostname.as_str()), (1, Some(1), "mine"));
    let filter = BotFilter { owner: None, project_id: Some("prj_x") };
    assert_eq!(store::bots::list(&mut conn, tenant_id, filter, &Page::default()).await.expect("lists").total, Some(0));
    let counts = store::bots::stats(&mut conn, tenant_id).await.expect("counts");
    assert_eq!(counts.iter().map(|group| group.count).sum::<u64>(), 2);
    assert!(counts.iter().any(|group| group.suspended && group.status == BotStatus::Stopped));
    let all = store::bots::stats_of_all(&mut conn).await.expect("counts");
    assert!(counts.iter().all(|group| {
        all.iter().any(|sum| {
            (sum.status, sum.enabled, sum.suspended) == (group.status, group.enabled, group.suspended)
                && sum.count >= group.count
        })
    }));
    drop(conn);

    bots::delete(domain, &developer, (tenant_id, "mine"), None).await.expect("deletes");
    let mut tx = domain.db.begin().await.expect("begins");
    let twin = store::bots::insert(&mut tx, &started).await;
    assert!(matches!(twin, Err(StoreError::Conflict(_))), "{twin:?}");
}

async fn refused_bots(domain: &Domain, admin: &Caller, tenant_id: &str) {
    let many = BotFields {
        name: Some(" x".into()),
        key_strategy: Some("luck".into()),
        permissions: Some(vec!["everything".into()]),
        allowed_vendors: Some(vec!["nobody".into()]),
        model_aliases: Some(BTreeMap::from([("a".into(), "b c".into())])),
        fallbacks: Some(BTreeMap::from([("m".into(), vec!["m".into()])])),
        default_max_tokens: Some(Some(0)),
        quotas: Some(vec![json!({"metric": "tokens", "window": "day", "limit": "many", "x": 1}), json!([])]),
        limits: Some(Limits { max_concurrency: Some(0), ..Default::default() }),
        resources: Some(Some(json!({"cpu_millis": 1, "gpu": 1}))),
        project_id: Some(Some("prj_x".into())),
        ..BotFields::default()
    };
    let found = broken(bots::create(domain, admin, tenant_id, "Stats".into(), many).await);
    let fields: Vec<&str> = found.iter().map(|(field, _)| field.as_str()).collect();
    let wanted = [
        "key_strategy",
        "permissions[0]",
        "quotas[0].x",
        "quotas[0].metric",
        "quotas[0].limit",
        "quotas[1]",
        "resources.cpu_millis",
        "resources.gpu",
        "hostname",
        "name",
        "model_aliases.a",
        "fallbacks.m",
        "default_max_tokens",
        "limits.max_concurrency",
        "image",
        "project_id",
        "allowed_vendors[0]",
    ];
    assert_eq!(fields, wanted);
    let reserved = bots::create(domain, admin, tenant_id, "stats".into(), BotFields::default()).await;
    assert_eq!(broken(reserved), [("hostname".to_owned(), "reserved")]);
}

/// The last chapter: everything above is in the audit log, chained and without
/// a secret.
pub async fn audit(domain: &Domain) {
    let mut conn = domain.db.read().await.expect("reads");
    let report = audit_store::verify(&mut conn).await.expect("walks");
    let ChainReport::Intact { rows, head } = report else { panic!("broken: {report:?}") };
    assert!(rows > 20 && head.len() == 64);
    let filter = AuditFilter { action: Some("provider_key.rotate"), ..AuditFilter::default() };
    let found = audit_store::list(&mut conn, filter, &Page::default()).await.expect("lists");
    assert_eq!((found.rows.len(), found.rows[0].entry.actor.as_str()), (1, "token:a"));
    let mut seen = 0;
    let mut cursor: Option<String> = None;
    loop {
        let page = Page::new(Some(7), cursor.as_deref()).expect("page");
        let part = audit_store::list(&mut conn, AuditFilter::default(), &page).await.expect("lists");
        seen += part.rows.len() as u64;
        for row in &part.rows {
            let text = format!("{row:?}");
            assert!(!text.contains("sk-") && !text.contains("cgb_") && !text.contains("cga_"), "{text}");
        }
        cursor = part.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, rows);
    drop(conn);

    let mut tx = domain.db.begin().await.expect("begins");
    sqlx::query("UPDATE audit_log SET actor = 'somebody' WHERE seq = 3").execute(&mut *tx).await.expect("tampers");
    assert_eq!(audit_store::verify(&mut tx).await.expect("walks"), ChainReport::Broken { seq: 3 });
    tx.rollback().await.expect("rolls back");
    let mut tx = domain.db.begin().await.expect("begins");
    sqlx::query("DELETE FROM audit_log WHERE seq > 5").execute(&mut *tx).await.expect("cuts");
    assert_eq!(audit_store::verify(&mut tx).await.expect("walks"), ChainReport::Broken { seq: 6 });
    tx.rollback().await.expect("rolls back");
    assert!(Principal::bootstrap().has(Permission::AuditRead));
}
