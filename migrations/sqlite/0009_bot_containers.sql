-- Runners: processes that hold a container engine's socket. `engine`: JSON of
-- what it told of its engine last; `capacity`: what of it may be used.
CREATE TABLE runners (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    public_key_sha256 BLOB,
    certificate_expires_at INTEGER,
    software_version TEXT NOT NULL,
    labels TEXT NOT NULL,
    engine TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('unknown', 'ready', 'engine_unavailable')),
    state_reason TEXT NOT NULL,
    cpu_millis INTEGER NOT NULL,
    memory_mb INTEGER NOT NULL,
    max_bots INTEGER NOT NULL,
    last_seen_at INTEGER,
    revoked_at INTEGER,
    created_at INTEGER NOT NULL
) STRICT;

-- One row for each bot that we run. Above: what is wanted, written with the
-- bot; below `status`: what is observed, written by whoever hears a runner.
-- `subnet`: which block of the bots' pool is this bot's. `run`: JSON of command,
-- environment, probe and files. `restart_of`: the start that a restart is to end.
CREATE TABLE bot_containers (
    bot_id TEXT PRIMARY KEY REFERENCES bots (id) ON DELETE CASCADE,
    generation INTEGER NOT NULL,
    run TEXT NOT NULL,
    runner_id TEXT REFERENCES runners (id),
    subnet INTEGER NOT NULL CONSTRAINT bot_containers_subnet_key UNIQUE,
    cpu_millis INTEGER NOT NULL,
    memory_mb INTEGER NOT NULL,
    pids_limit INTEGER NOT NULL,
    disk_mb INTEGER NOT NULL,
    token_id TEXT NOT NULL,
    sealed_token BLOB NOT NULL,
    sealed_gateway_token BLOB NOT NULL,
    restart_of TEXT NOT NULL,
    killed INTEGER NOT NULL CHECK (killed IN (0, 1)),
    status TEXT NOT NULL,
    reason_code TEXT NOT NULL,
    reason TEXT NOT NULL,
    status_since INTEGER NOT NULL,
    container_id TEXT NOT NULL,
    image_digest TEXT NOT NULL,
    started_at TEXT NOT NULL,
    exit_code INTEGER,
    oom INTEGER NOT NULL CHECK (oom IN (0, 1)),
    restart_count INTEGER NOT NULL,
    health TEXT NOT NULL CHECK (health IN ('unknown', 'healthy', 'unhealthy')),
    health_at INTEGER,
    observed_at INTEGER,
    failures INTEGER NOT NULL,
    retry_at INTEGER
) STRICT;
CREATE INDEX bot_containers_runner ON bot_containers (runner_id);

-- What is left to take away of bots that are deleted: their row is gone, their
-- block of the pool is not free before their runner said that nothing is left.
CREATE TABLE bot_remains (
    bot_id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    hostname TEXT NOT NULL,
    runner_id TEXT NOT NULL,
    subnet INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- History of a bot that we run: `kind` is status or engine.
CREATE TABLE bot_events (
    id TEXT PRIMARY KEY,
    bot_id TEXT NOT NULL REFERENCES bots (id) ON DELETE CASCADE,
    kind TEXT NOT NULL CHECK (kind IN ('status', 'engine')),
    status TEXT NOT NULL,
    reason_code TEXT NOT NULL,
    reason TEXT NOT NULL,
    exit_code INTEGER,
    at INTEGER NOT NULL
) STRICT;
CREATE INDEX bot_events_bot ON bot_events (bot_id, id);
CREATE INDEX bot_events_at ON bot_events (at);

-- A minute of a container, as its runner summed it up.
CREATE TABLE bot_metrics (
    bot_id TEXT NOT NULL REFERENCES bots (id) ON DELETE CASCADE,
    minute_at INTEGER NOT NULL,
    cpu_millis INTEGER NOT NULL,
    memory_bytes INTEGER NOT NULL,
    rx_bytes INTEGER NOT NULL,
    tx_bytes INTEGER NOT NULL,
    pids INTEGER NOT NULL,
    PRIMARY KEY (bot_id, minute_at)
) STRICT, WITHOUT ROWID;
CREATE INDEX bot_metrics_minute ON bot_metrics (minute_at);

-- What the bots of a tenant may take together; null: no limit.
CREATE TABLE tenant_resource_quotas (
    tenant_id TEXT PRIMARY KEY REFERENCES tenants (id) ON DELETE CASCADE,
    bots INTEGER,
    cpu_millis INTEGER,
    memory_mb INTEGER,
    disk_mb INTEGER,
    updated_at INTEGER NOT NULL
) STRICT;

-- Where a token may be used from, as a CIDR block; null: from anywhere.
ALTER TABLE bot_tokens ADD COLUMN network TEXT;
