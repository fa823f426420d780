-- The first schema. Conventions: TEXT ids (prefix + UUIDv7), unix microseconds
-- and micro-USD as integers, flags 0/1, JSON as TEXT, secrets only sealed.
-- History (usage, audit) holds ids without foreign keys: it outlives what it
-- is about, and `tombstones` keeps the names.

CREATE TABLE config_revision (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    generation INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
INSERT INTO config_revision (id, generation, revision, updated_at) VALUES (1, 1, 0, 0);

CREATE TABLE settings (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE TABLE tenants (
    id TEXT PRIMARY KEY,
    slug TEXT NOT NULL CONSTRAINT tenants_slug_key UNIQUE,
    name TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('active', 'suspended')),
    time_zone TEXT NOT NULL,
    version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE TABLE projects (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    slug TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    CONSTRAINT projects_slug_key UNIQUE (tenant_id, slug)
) STRICT;

-- tenant_id is null for tokens of the platform.
CREATE TABLE api_tokens (
    id TEXT PRIMARY KEY,
    tenant_id TEXT REFERENCES tenants (id),
    name TEXT NOT NULL,
    sha256 BLOB NOT NULL CONSTRAINT api_tokens_sha256_key UNIQUE,
    last4 TEXT NOT NULL,
    role TEXT NOT NULL,
    scopes TEXT NOT NULL,
    created_by TEXT NOT NULL,
    expires_at INTEGER,
    last_used_at INTEGER,
    revoked_at INTEGER,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX api_tokens_tenant ON api_tokens (tenant_id, id);

-- A tenant's own vendors; the built-in ones are code.
CREATE TABLE vendors (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    slug TEXT NOT NULL,
    title TEXT NOT NULL,
    base_url TEXT NOT NULL,
    auth TEXT NOT NULL,
    dialect TEXT NOT NULL,
    include_usage TEXT NOT NULL,
    routes TEXT NOT NULL,
    version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    CONSTRAINT vendors_slug_key UNIQUE (tenant_id, slug)
) STRICT;

-- `origin` is what the secret is sealed for; `base_url` is empty when the
-- vendor's own is used. `sealed_secret` is null for vendors that want none.
CREATE TABLE provider_keys (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    project_id TEXT REFERENCES projects (id),
    vendor TEXT NOT NULL,
    label TEXT NOT NULL,
    tags TEXT NOT NULL,
    base_url TEXT NOT NULL,
    origin TEXT NOT NULL,
    sealed_secret BLOB,
    wrapped_dek BLOB,
    kek_id TEXT NOT NULL,
    secret_version INTEGER NOT NULL,
    last4 TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('active', 'suspect', 'invalid', 'exhausted', 'cooling')),
    status_reason TEXT NOT NULL,
    weight INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    max_concurrency INTEGER NOT NULL,
    options TEXT NOT NULL,
    enabled INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    CONSTRAINT provider_keys_label_key UNIQUE (tenant_id, vendor, label)
) STRICT;
CREATE INDEX provider_keys_tenant ON provider_keys (tenant_id, id);
CREATE INDEX provider_keys_project ON provider_keys (project_id);

CREATE TABLE bots (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    project_id TEXT REFERENCES projects (id),
    hostname TEXT NOT NULL,
    name TEXT NOT NULL,
    owner TEXT NOT NULL,
    labels TEXT NOT NULL,
    tags TEXT NOT NULL,
    allowed_vendors TEXT NOT NULL,
    allowed_models TEXT NOT NULL,
    model_aliases TEXT NOT NULL,
    fallbacks TEXT NOT NULL,
    key_strategy TEXT NOT NULL,
    on_disconnect TEXT NOT NULL CHECK (on_disconnect IN ('cancel', 'drain')),
    default_max_tokens INTEGER,
    include_usage TEXT NOT NULL CHECK (include_usage IN ('auto', 'never')),
    permissions TEXT NOT NULL,
    quotas TEXT NOT NULL,
    requests_per_minute INTEGER,
    tokens_per_minute INTEGER,
    max_concurrency INTEGER,
    adapter TEXT NOT NULL CHECK (adapter IN ('external', 'openclaw', 'generic')),
    image TEXT,
    resources TEXT,
    template TEXT,
    desired_state TEXT NOT NULL,
    status TEXT NOT NULL,
    status_reason TEXT NOT NULL,
    status_since INTEGER NOT NULL,
    enabled INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    suspended INTEGER NOT NULL CHECK (suspended IN (0, 1)),
    version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    CONSTRAINT bots_hostname_key UNIQUE (tenant_id, hostname)
) STRICT;
CREATE INDEX bots_tenant ON bots (tenant_id, id);
CREATE INDEX bots_project ON bots (project_id);

CREATE TABLE bot_tokens (
    id TEXT PRIMARY KEY,
    bot_id TEXT NOT NULL REFERENCES bots (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    sha256 BLOB NOT NULL CONSTRAINT bot_tokens_sha256_key UNIQUE,
    last4 TEXT NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX bot_tokens_bot ON bot_tokens (bot_id, id);

-- What a deleted thing was called, for history.
CREATE TABLE tombstones (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    tenant_id TEXT NOT NULL,
    name TEXT NOT NULL,
    deleted_at INTEGER NOT NULL
) STRICT;

-- The end of the audit chain; its lock makes config writes one after another.
CREATE TABLE audit_head (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    seq INTEGER NOT NULL,
    hash BLOB NOT NULL
) STRICT;
INSERT INTO audit_head (id, seq, hash) VALUES (1, 0, x'');

CREATE TABLE audit_log (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL CONSTRAINT audit_log_id_key UNIQUE,
    tenant_id TEXT,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    target_kind TEXT NOT NULL,
    target_id TEXT NOT NULL,
    detail TEXT NOT NULL,
    ip TEXT NOT NULL,
    user_agent TEXT NOT NULL,
    at INTEGER NOT NULL,
    prev_hash BLOB NOT NULL,
    hash BLOB NOT NULL
) STRICT;
CREATE INDEX audit_log_tenant ON audit_log (tenant_id, seq);

-- `state` is pending until the first request has its answer; the answer is
-- sealed, because it may hold a token that is shown once.
CREATE TABLE idempotency_keys (
    principal TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    route TEXT NOT NULL,
    body_sha256 BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'done')),
    sealed_answer BLOB,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (principal, idempotency_key)
) STRICT;
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);

CREATE TABLE pki (
    name TEXT PRIMARY KEY,
    certificate_pem TEXT NOT NULL,
    sealed_key BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

CREATE TABLE enroll_tokens (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('node', 'runner')),
    sha256 BLOB NOT NULL CONSTRAINT enroll_tokens_sha256_key UNIQUE,
    created_by TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at INTEGER,
    used_by_public_key_sha256 BLOB,
    used_by_id TEXT,
    created_at INTEGER NOT NULL
) STRICT;

-- `public_key_sha256` is null for a node that came over the Unix socket.
CREATE TABLE nodes (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    public_key_sha256 BLOB,
    sealed_sealing_key BLOB NOT NULL,
    certificate_expires_at INTEGER,
    software_version TEXT NOT NULL,
    instance_id TEXT NOT NULL,
    last_seen_at INTEGER,
    acked_generation INTEGER,
    acked_revision INTEGER,
    acked_hash TEXT,
    acked_at INTEGER,
    nacked_generation INTEGER,
    nacked_revision INTEGER,
    nacked_hash TEXT,
    nack_reason TEXT,
    nacked_at INTEGER,
    spool_records INTEGER NOT NULL,
    spool_bytes INTEGER NOT NULL,
    spool_oldest_millis INTEGER NOT NULL,
    inflight INTEGER NOT NULL,
    requests_total INTEGER NOT NULL,
    revoked_at INTEGER,
    created_at INTEGER NOT NULL
) STRICT;

-- `ended` is empty, 'closed' or 'abandoned'.
CREATE TABLE ingest_cursors (
    node_id TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    shard INTEGER NOT NULL,
    next_position INTEGER NOT NULL,
    ended TEXT NOT NULL,
    instance_id TEXT NOT NULL,
    lost_records INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (node_id, epoch, shard)
) STRICT;

-- The three tables of ingest have no row ids: one tree less to write per row.

-- Exchanges that were sent and of whose end nothing is known yet.
CREATE TABLE usage_open (
    exchange_id TEXT PRIMARY KEY,
    node_id TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    shard INTEGER NOT NULL,
    position INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    tenant_id TEXT NOT NULL,
    project_id TEXT NOT NULL,
    bot_id TEXT NOT NULL,
    vendor TEXT NOT NULL,
    model TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    client_request_id TEXT NOT NULL,
    provider_key_id TEXT NOT NULL,
    stream INTEGER NOT NULL,
    reserved_tokens INTEGER NOT NULL,
    config_version TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    session_id TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_open_shard ON usage_open (node_id, epoch, shard);

-- One row per exchange. Empty text: none. Null count: the vendor did not say.
CREATE TABLE usage_events (
    exchange_id TEXT PRIMARY KEY,
    node_id TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    shard INTEGER NOT NULL,
    position INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    tenant_id TEXT NOT NULL,
    project_id TEXT NOT NULL,
    bot_id TEXT NOT NULL,
    client_request_id TEXT NOT NULL,
    labels TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    vendor TEXT NOT NULL,
    model TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    status_code INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    error_code TEXT NOT NULL,
    error_message TEXT NOT NULL,
    stream INTEGER NOT NULL,
    input_tokens INTEGER,
    cached_input_tokens INTEGER,
    cache_write_tokens INTEGER,
    output_tokens INTEGER,
    reasoning_tokens INTEGER,
    total_tokens INTEGER,
    usage_source TEXT NOT NULL,
    reserved_tokens INTEGER NOT NULL,
    provider_key_id TEXT NOT NULL,
    tried TEXT NOT NULL,
    duration_micros INTEGER NOT NULL,
    ttft_micros INTEGER,
    cost_micros INTEGER,
    config_version TEXT NOT NULL,
    indeterminate INTEGER NOT NULL CHECK (indeterminate IN (0, 1))
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_events_tenant ON usage_events (tenant_id, created_at, exchange_id);
CREATE INDEX usage_events_bot ON usage_events (bot_id, created_at, exchange_id);

-- Sums per UTC hour of `created_at`. Equal to the sum of the events, always:
-- both are written in the same transaction. Null counts add nothing.
CREATE TABLE usage_rollup_hour (
    tenant_id TEXT NOT NULL,
    bot_id TEXT NOT NULL,
    hour_start INTEGER NOT NULL,
    project_id TEXT NOT NULL,
    vendor TEXT NOT NULL,
    model TEXT NOT NULL,
    provider_key_id TEXT NOT NULL,
    status_code INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    request_count INTEGER NOT NULL,
    error_count INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    cached_input_tokens INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    total_tokens INTEGER NOT NULL,
    duration_sum_micros INTEGER NOT NULL,
    duration_count INTEGER NOT NULL,
    ttft_sum_micros INTEGER NOT NULL,
    ttft_count INTEGER NOT NULL,
    cost_micros INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, bot_id, hour_start, project_id, vendor, model, provider_key_id, status_code, outcome)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_rollup_hour_tenant ON usage_rollup_hour (tenant_id, hour_start);
