-- Runners: processes that hold a container engine's socket. `engine`: JSON of
-- what it told of its engine last; `capacity`: what of it may be used.
CREATE TABLE runners (
    id TEXT COLLATE "C" PRIMARY KEY,
    name TEXT COLLATE "C" NOT NULL,
    public_key_sha256 BYTEA,
    certificate_expires_at BIGINT,
    software_version TEXT COLLATE "C" NOT NULL,
    labels TEXT COLLATE "C" NOT NULL,
    engine TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL CHECK (state IN ('unknown', 'ready', 'engine_unavailable')),
    state_reason TEXT COLLATE "C" NOT NULL,
    cpu_millis BIGINT NOT NULL,
    memory_mb BIGINT NOT NULL,
    max_bots BIGINT NOT NULL,
    last_seen_at BIGINT,
    revoked_at BIGINT,
    created_at BIGINT NOT NULL
);

-- One row for each bot that we run. Above: what is wanted, written with the
-- bot; below `status`: what is observed, written by whoever hears a runner.
-- `subnet`: which block of the bots' pool is this bot's. `run`: JSON of command,
-- environment, probe and files. `restart_of`: the start that a restart is to end.
CREATE TABLE bot_containers (
    bot_id TEXT COLLATE "C" PRIMARY KEY REFERENCES bots (id) ON DELETE CASCADE,
    generation BIGINT NOT NULL,
    run TEXT COLLATE "C" NOT NULL,
    runner_id TEXT COLLATE "C" REFERENCES runners (id),
    subnet BIGINT NOT NULL CONSTRAINT bot_containers_subnet_key UNIQUE,
    cpu_millis BIGINT NOT NULL,
    memory_mb BIGINT NOT NULL,
    pids_limit BIGINT NOT NULL,
    disk_mb BIGINT NOT NULL,
    token_id TEXT COLLATE "C" NOT NULL,
    sealed_token BYTEA NOT NULL,
    sealed_gateway_token BYTEA NOT NULL,
    restart_of TEXT COLLATE "C" NOT NULL,
    killed BIGINT NOT NULL CHECK (killed IN (0, 1)),
    status TEXT COLLATE "C" NOT NULL,
    reason_code TEXT COLLATE "C" NOT NULL,
    reason TEXT COLLATE "C" NOT NULL,
    status_since BIGINT NOT NULL,
    container_id TEXT COLLATE "C" NOT NULL,
    image_digest TEXT COLLATE "C" NOT NULL,
    started_at TEXT COLLATE "C" NOT NULL,
    exit_code BIGINT,
    oom BIGINT NOT NULL CHECK (oom IN (0, 1)),
    restart_count BIGINT NOT NULL,
    health TEXT COLLATE "C" NOT NULL CHECK (health IN ('unknown', 'healthy', 'unhealthy')),
    health_at BIGINT,
    observed_at BIGINT,
    failures BIGINT NOT NULL,
    retry_at BIGINT
);
CREATE INDEX bot_containers_runner ON bot_containers (runner_id);

-- What is left to take away of bots that are deleted: their row is gone, their
-- block of the pool is not free before their runner said that nothing is left.
CREATE TABLE bot_remains (
    bot_id TEXT COLLATE "C" PRIMARY KEY,
    tenant_id TEXT COLLATE "C" NOT NULL,
    hostname TEXT COLLATE "C" NOT NULL,
    runner_id TEXT COLLATE "C" NOT NULL,
    subnet BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);

-- History of a bot that we run: `kind` is status or engine.
CREATE TABLE bot_events (
    id TEXT COLLATE "C" PRIMARY KEY,
    bot_id TEXT COLLATE "C" NOT NULL REFERENCES bots (id) ON DELETE CASCADE,
    kind TEXT COLLATE "C" NOT NULL CHECK (kind IN ('status', 'engine')),
    status TEXT COLLATE "C" NOT NULL,
    reason_code TEXT COLLATE "C" NOT NULL,
    reason TEXT COLLATE "C" NOT NULL,
    exit_code BIGINT,
    at BIGINT NOT NULL
);
CREATE INDEX bot_events_bot ON bot_events (bot_id, id);
CREATE INDEX bot_events_at ON bot_events (at);

-- A minute of a container, as its runner summed it up.
CREATE TABLE bot_metrics (
    bot_id TEXT COLLATE "C" NOT NULL REFERENCES bots (id) ON DELETE CASCADE,
    minute_at BIGINT NOT NULL,
    cpu_millis BIGINT NOT NULL,
    memory_bytes BIGINT NOT NULL,
    rx_bytes BIGINT NOT NULL,
    tx_bytes BIGINT NOT NULL,
    pids BIGINT NOT NULL,
    PRIMARY KEY (bot_id, minute_at)
);
CREATE INDEX bot_metrics_minute ON bot_metrics (minute_at);

-- What the bots of a tenant may take together; null: no limit.
CREATE TABLE tenant_resource_quotas (
    tenant_id TEXT COLLATE "C" PRIMARY KEY REFERENCES tenants (id) ON DELETE CASCADE,
    bots BIGINT,
    cpu_millis BIGINT,
    memory_mb BIGINT,
    disk_mb BIGINT,
    updated_at BIGINT NOT NULL
);

-- Where a token may be used from, as a CIDR block; null: from anywhere.
ALTER TABLE bot_tokens ADD COLUMN network TEXT COLLATE "C";
