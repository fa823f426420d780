-- The first schema. Conventions: TEXT ids (prefix + UUIDv7), unix microseconds
-- and micro-USD as integers, flags 0/1, JSON as TEXT, secrets only sealed.
-- History (usage, audit) holds ids without foreign keys: it outlives what it
-- is about, and `tombstones` keeps the names.

CREATE TABLE config_revision (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    generation BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
INSERT INTO config_revision (id, generation, revision, updated_at) VALUES (1, 1, 0, 0);

CREATE TABLE settings (
    name TEXT COLLATE "C" PRIMARY KEY,
    value TEXT COLLATE "C" NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE tenants (
    id TEXT COLLATE "C" PRIMARY KEY,
    slug TEXT COLLATE "C" NOT NULL CONSTRAINT tenants_slug_key UNIQUE,
    name TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL CHECK (state IN ('active', 'suspended')),
    time_zone TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE projects (
    id TEXT COLLATE "C" PRIMARY KEY,
    tenant_id TEXT COLLATE "C" NOT NULL REFERENCES tenants (id),
    slug TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    description TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    CONSTRAINT projects_slug_key UNIQUE (tenant_id, slug)
);

-- tenant_id is null for tokens of the platform.
CREATE TABLE api_tokens (
    id TEXT COLLATE "C" PRIMARY KEY,
    tenant_id TEXT COLLATE "C" REFERENCES tenants (id),
    name TEXT COLLATE "C" NOT NULL,
    sha256 BYTEA NOT NULL CONSTRAINT api_tokens_sha256_key UNIQUE,
    last4 TEXT COLLATE "C" NOT NULL,
    role TEXT COLLATE "C" NOT NULL,
    scopes TEXT COLLATE "C" NOT NULL,
    created_by TEXT COLLATE "C" NOT NULL,
    expires_at BIGINT,
    last_used_at BIGINT,
    revoked_at BIGINT,
    created_at BIGINT NOT NULL
);
CREATE INDEX api_tokens_tenant ON api_tokens (tenant_id, id);

-- A tenant's own vendors; the built-in ones are code.
CREATE TABLE vendors (
    id TEXT COLLATE "C" PRIMARY KEY,
    tenant_id TEXT COLLATE "C" NOT NULL REFERENCES tenants (id),
    slug TEXT COLLATE "C" NOT NULL,
    title TEXT COLLATE "C" NOT NULL,
    base_url TEXT COLLATE "C" NOT NULL,
    auth TEXT COLLATE "C" NOT NULL,
    dialect TEXT COLLATE "C" NOT NULL,
    include_usage TEXT COLLATE "C" NOT NULL,
    routes TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    CONSTRAINT vendors_slug_key UNIQUE (tenant_id, slug)
);

-- `origin` is what the secret is sealed for; `base_url` is empty when the
-- vendor's own is used. `sealed_secret` is null for vendors that want none.
CREATE TABLE provider_keys (
    id TEXT COLLATE "C" PRIMARY KEY,
    tenant_id TEXT COLLATE "C" NOT NULL REFERENCES tenants (id),
    project_id TEXT COLLATE "C" REFERENCES projects (id),
    vendor TEXT COLLATE "C" NOT NULL,
    label TEXT COLLATE "C" NOT NULL,
    tags TEXT COLLATE "C" NOT NULL,
    base_url TEXT COLLATE "C" NOT NULL,
    origin TEXT COLLATE "C" NOT NULL,
    sealed_secret BYTEA,
    wrapped_dek BYTEA,
    kek_id TEXT COLLATE "C" NOT NULL,
    secret_version BIGINT NOT NULL,
    last4 TEXT COLLATE "C" NOT NULL,
    fingerprint TEXT COLLATE "C" NOT NULL,
    status TEXT COLLATE "C" NOT NULL CHECK (status IN ('active', 'suspect', 'invalid', 'exhausted', 'cooling')),
    status_reason TEXT COLLATE "C" NOT NULL,
    weight BIGINT NOT NULL,
    priority BIGINT NOT NULL,
    max_concurrency BIGINT NOT NULL,
    options TEXT COLLATE "C" NOT NULL,
    enabled BIGINT NOT NULL CHECK (enabled IN (0, 1)),
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    CONSTRAINT provider_keys_label_key UNIQUE (tenant_id, vendor, label)
);
CREATE INDEX provider_keys_tenant ON provider_keys (tenant_id, id);
CREATE INDEX provider_keys_project ON provider_keys (project_id);

CREATE TABLE bots (
    id TEXT COLLATE "C" PRIMARY KEY,
    tenant_id TEXT COLLATE "C" NOT NULL REFERENCES tenants (id),
    project_id TEXT COLLATE "C" REFERENCES projects (id),
    hostname TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    owner TEXT COLLATE "C" NOT NULL,
    labels TEXT COLLATE "C" NOT NULL,
    tags TEXT COLLATE "C" NOT NULL,
    allowed_vendors TEXT COLLATE "C" NOT NULL,
    allowed_models TEXT COLLATE "C" NOT NULL,
    model_aliases TEXT COLLATE "C" NOT NULL,
    fallbacks TEXT COLLATE "C" NOT NULL,
    key_strategy TEXT COLLATE "C" NOT NULL,
    on_disconnect TEXT COLLATE "C" NOT NULL CHECK (on_disconnect IN ('cancel', 'drain')),
    default_max_tokens BIGINT,
    include_usage TEXT COLLATE "C" NOT NULL CHECK (include_usage IN ('auto', 'never')),
    permissions TEXT COLLATE "C" NOT NULL,
    quotas TEXT COLLATE "C" NOT NULL,
    requests_per_minute BIGINT,
    tokens_per_minute BIGINT,
    max_concurrency BIGINT,
    adapter TEXT COLLATE "C" NOT NULL CHECK (adapter IN ('external', 'openclaw', 'generic')),
    image TEXT COLLATE "C",
    resources TEXT COLLATE "C",
    template TEXT COLLATE "C",
    desired_state TEXT COLLATE "C" NOT NULL,
    status TEXT COLLATE "C" NOT NULL,
    status_reason TEXT COLLATE "C" NOT NULL,
    status_since BIGINT NOT NULL,
    enabled BIGINT NOT NULL CHECK (enabled IN (0, 1)),
    suspended BIGINT NOT NULL CHECK (suspended IN (0, 1)),
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    CONSTRAINT bots_hostname_key UNIQUE (tenant_id, hostname)
);
CREATE INDEX bots_tenant ON bots (tenant_id, id);
CREATE INDEX bots_project ON bots (project_id);

CREATE TABLE bot_tokens (
    id TEXT COLLATE "C" PRIMARY KEY,
    bot_id TEXT COLLATE "C" NOT NULL REFERENCES bots (id) ON DELETE CASCADE,
    name TEXT COLLATE "C" NOT NULL,
    sha256 BYTEA NOT NULL CONSTRAINT bot_tokens_sha256_key UNIQUE,
    last4 TEXT COLLATE "C" NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT,
    created_at BIGINT NOT NULL
);
CREATE INDEX bot_tokens_bot ON bot_tokens (bot_id, id);

-- What a deleted thing was called, for history.
CREATE TABLE tombstones (
    id TEXT COLLATE "C" PRIMARY KEY,
    kind TEXT COLLATE "C" NOT NULL,
    tenant_id TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    deleted_at BIGINT NOT NULL
);

-- The end of the audit chain; its lock makes config writes one after another.
CREATE TABLE audit_head (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    seq BIGINT NOT NULL,
    hash BYTEA NOT NULL
);
INSERT INTO audit_head (id, seq, hash) VALUES (1, 0, '');

CREATE TABLE audit_log (
    seq BIGINT PRIMARY KEY,
    id TEXT COLLATE "C" NOT NULL CONSTRAINT audit_log_id_key UNIQUE,
    tenant_id TEXT COLLATE "C",
    actor TEXT COLLATE "C" NOT NULL,
    action TEXT COLLATE "C" NOT NULL,
    target_kind TEXT COLLATE "C" NOT NULL,
    target_id TEXT COLLATE "C" NOT NULL,
    detail TEXT COLLATE "C" NOT NULL,
    ip TEXT COLLATE "C" NOT NULL,
    user_agent TEXT COLLATE "C" NOT NULL,
    at BIGINT NOT NULL,
    prev_hash BYTEA NOT NULL,
    hash BYTEA NOT NULL
);
CREATE INDEX audit_log_tenant ON audit_log (tenant_id, seq);

-- `state` is pending until the first request has its answer; the answer is
-- sealed, because it may hold a token that is shown once.
CREATE TABLE idempotency_keys (
    principal TEXT COLLATE "C" NOT NULL,
    idempotency_key TEXT COLLATE "C" NOT NULL,
    route TEXT COLLATE "C" NOT NULL,
    body_sha256 BYTEA NOT NULL,
    state TEXT COLLATE "C" NOT NULL CHECK (state IN ('pending', 'done')),
    sealed_answer BYTEA,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (principal, idempotency_key)
);
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);

CREATE TABLE pki (
    name TEXT COLLATE "C" PRIMARY KEY,
    certificate_pem TEXT COLLATE "C" NOT NULL,
    sealed_key BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);

CREATE TABLE enroll_tokens (
    id TEXT COLLATE "C" PRIMARY KEY,
    kind TEXT COLLATE "C" NOT NULL CHECK (kind IN ('node', 'runner')),
    sha256 BYTEA NOT NULL CONSTRAINT enroll_tokens_sha256_key UNIQUE,
    created_by TEXT COLLATE "C" NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at BIGINT,
    used_by_public_key_sha256 BYTEA,
    used_by_id TEXT COLLATE "C",
    created_at BIGINT NOT NULL
);

-- `public_key_sha256` is null for a node that came over the Unix socket.
CREATE TABLE nodes (
    id TEXT COLLATE "C" PRIMARY KEY,
    name TEXT COLLATE "C" NOT NULL,
    public_key_sha256 BYTEA,
    sealed_sealing_key BYTEA NOT NULL,
    certificate_expires_at BIGINT,
    software_version TEXT COLLATE "C" NOT NULL,
    instance_id TEXT COLLATE "C" NOT NULL,
    last_seen_at BIGINT,
    acked_generation BIGINT,
    acked_revision BIGINT,
    acked_hash TEXT COLLATE "C",
    acked_at BIGINT,
    nacked_generation BIGINT,
    nacked_revision BIGINT,
    nacked_hash TEXT COLLATE "C",
    nack_reason TEXT COLLATE "C",
    nacked_at BIGINT,
    spool_records BIGINT NOT NULL,
    spool_bytes BIGINT NOT NULL,
    spool_oldest_millis BIGINT NOT NULL,
    inflight BIGINT NOT NULL,
    requests_total BIGINT NOT NULL,
    revoked_at BIGINT,
    created_at BIGINT NOT NULL
);

-- `ended` is empty, 'closed' or 'abandoned'.
CREATE TABLE ingest_cursors (
    node_id TEXT COLLATE "C" NOT NULL,
    epoch BIGINT NOT NULL,
    shard BIGINT NOT NULL,
    next_position BIGINT NOT NULL,
    ended TEXT COLLATE "C" NOT NULL,
    instance_id TEXT COLLATE "C" NOT NULL,
    lost_records BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (node_id, epoch, shard)
);

-- Exchanges that were sent and of whose end nothing is known yet.
CREATE TABLE usage_open (
    exchange_id TEXT COLLATE "C" PRIMARY KEY,
    node_id TEXT COLLATE "C" NOT NULL,
    epoch BIGINT NOT NULL,
    shard BIGINT NOT NULL,
    position BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    tenant_id TEXT COLLATE "C" NOT NULL,
    project_id TEXT COLLATE "C" NOT NULL,
    bot_id TEXT COLLATE "C" NOT NULL,
    vendor TEXT COLLATE "C" NOT NULL,
    model TEXT COLLATE "C" NOT NULL,
    endpoint TEXT COLLATE "C" NOT NULL,
    client_request_id TEXT COLLATE "C" NOT NULL,
    provider_key_id TEXT COLLATE "C" NOT NULL,
    stream BIGINT NOT NULL,
    reserved_tokens BIGINT NOT NULL,
    config_version TEXT COLLATE "C" NOT NULL,
    agent_id TEXT COLLATE "C" NOT NULL,
    session_id TEXT COLLATE "C" NOT NULL
);
CREATE INDEX usage_open_shard ON usage_open (node_id, epoch, shard);

-- One row per exchange. Empty text: none. Null count: the vendor did not say.
CREATE TABLE usage_events (
    exchange_id TEXT COLLATE "C" PRIMARY KEY,
    node_id TEXT COLLATE "C" NOT NULL,
    epoch BIGINT NOT NULL,
    shard BIGINT NOT NULL,
    position BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    tenant_id TEXT COLLATE "C" NOT NULL,
    project_id TEXT COLLATE "C" NOT NULL,
    bot_id TEXT COLLATE "C" NOT NULL,
    client_request_id TEXT COLLATE "C" NOT NULL,
    labels TEXT COLLATE "C" NOT NULL,
    agent_id TEXT COLLATE "C" NOT NULL,
    session_id TEXT COLLATE "C" NOT NULL,
    vendor TEXT COLLATE "C" NOT NULL,
    model TEXT COLLATE "C" NOT NULL,
    endpoint TEXT COLLATE "C" NOT NULL,
    status_code BIGINT NOT NULL,
    outcome TEXT COLLATE "C" NOT NULL,
    error_code TEXT COLLATE "C" NOT NULL,
    error_message TEXT COLLATE "C" NOT NULL,
    stream BIGINT NOT NULL,
    input_tokens BIGINT,
    cached_input_tokens BIGINT,
    cache_write_tokens BIGINT,
    output_tokens BIGINT,
    reasoning_tokens BIGINT,
    total_tokens BIGINT,
    usage_source TEXT COLLATE "C" NOT NULL,
    reserved_tokens BIGINT NOT NULL,
    provider_key_id TEXT COLLATE "C" NOT NULL,
    tried TEXT COLLATE "C" NOT NULL,
    duration_micros BIGINT NOT NULL,
    ttft_micros BIGINT,
    cost_micros BIGINT,
    config_version TEXT COLLATE "C" NOT NULL,
    indeterminate BIGINT NOT NULL CHECK (indeterminate IN (0, 1))
);
CREATE INDEX usage_events_tenant ON usage_events (tenant_id, created_at, exchange_id);
CREATE INDEX usage_events_bot ON usage_events (bot_id, created_at, exchange_id);

-- Sums per UTC hour of `created_at`. Equal to the sum of the events, always:
-- both are written in the same transaction. Null counts add nothing.
CREATE TABLE usage_rollup_hour (
    tenant_id TEXT COLLATE "C" NOT NULL,
    bot_id TEXT COLLATE "C" NOT NULL,
    hour_start BIGINT NOT NULL,
    project_id TEXT COLLATE "C" NOT NULL,
    vendor TEXT COLLATE "C" NOT NULL,
    model TEXT COLLATE "C" NOT NULL,
    provider_key_id TEXT COLLATE "C" NOT NULL,
    status_code BIGINT NOT NULL,
    outcome TEXT COLLATE "C" NOT NULL,
    request_count BIGINT NOT NULL,
    error_count BIGINT NOT NULL,
    input_tokens BIGINT NOT NULL,
    cached_input_tokens BIGINT NOT NULL,
    cache_write_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    reasoning_tokens BIGINT NOT NULL,
    total_tokens BIGINT NOT NULL,
    duration_sum_micros BIGINT NOT NULL,
    duration_count BIGINT NOT NULL,
    ttft_sum_micros BIGINT NOT NULL,
    ttft_count BIGINT NOT NULL,
    cost_micros BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, bot_id, hour_start, project_id, vendor, model, provider_key_id, status_code, outcome)
);
CREATE INDEX usage_rollup_hour_tenant ON usage_rollup_hour (tenant_id, hour_start);
