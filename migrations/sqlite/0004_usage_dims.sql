-- Usage, narrower: what exchanges have in common is written once and named by a
-- number, sums are kept per number, and days are summed up beside hours.
-- What is in the old table is carried over by the release that applies this
-- step, in the same transaction (`store/usage_convert.rs`).
ALTER TABLE usage_events RENAME TO usage_events_before;
DROP INDEX usage_events_tenant;
DROP INDEX usage_events_bot;
DROP TABLE usage_rollup_hour;

-- What sums are kept of. A row of kind `exchange` has all columns; the other
-- kinds leave out what they do not tell apart: `model` bot, labels and key;
-- `key` all but tenant, project and key; `bot` all but tenant, project, bot and
-- labels. `tenant` and `caller` (tenant and bot) only give a number to what events are found by.
-- digest: of kind and columns; unique where long texts cannot be.
CREATE TABLE usage_dims (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL CONSTRAINT usage_dims_digest_key UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('exchange', 'model', 'key', 'bot', 'tenant', 'caller')),
    tenant_id TEXT NOT NULL,
    project_id TEXT NOT NULL,
    bot_id TEXT NOT NULL,
    labels TEXT NOT NULL,
    vendor TEXT NOT NULL,
    model TEXT NOT NULL,
    provider_key_id TEXT NOT NULL,
    status_code INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    -- Of an `exchange`: the wider rows it is also summed up in.
    model_dim INTEGER,
    key_dim INTEGER,
    bot_dim INTEGER
) STRICT;
CREATE INDEX usage_dims_place ON usage_dims (tenant_id, kind, bot_id);

-- Where events come from and what else many of them share.
CREATE TABLE usage_origins (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL CONSTRAINT usage_origins_digest_key UNIQUE,
    node_id TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    shard INTEGER NOT NULL,
    stream INTEGER NOT NULL CHECK (stream IN (0, 1)),
    usage_source TEXT NOT NULL,
    config_version TEXT NOT NULL,
    price_ref TEXT NOT NULL,
    error_code TEXT NOT NULL
) STRICT;

-- One row per exchange. Null text: none. Null count: the vendor did not say.
-- exchange_id: the 16 bytes of the id. tried: a JSON array of attempts; a number
-- alone is one attempt of so many milliseconds whose key and status are the
-- exchange's.
CREATE TABLE usage_events (
    exchange_id BLOB NOT NULL PRIMARY KEY,
    created_at INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    tenant_no INTEGER NOT NULL,
    caller_no INTEGER NOT NULL,
    dim_id INTEGER NOT NULL,
    origin_id INTEGER NOT NULL,
    position INTEGER NOT NULL,
    endpoint TEXT,
    client_request_id TEXT,
    agent_id TEXT,
    session_id TEXT,
    error_message TEXT,
    input_tokens INTEGER,
    cached_input_tokens INTEGER,
    cache_write_tokens INTEGER,
    output_tokens INTEGER,
    reasoning_tokens INTEGER,
    total_tokens INTEGER,
    reserved_tokens INTEGER NOT NULL,
    tried TEXT,
    duration_micros INTEGER NOT NULL,
    ttft_micros INTEGER,
    cost_micros INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_events_tenant ON usage_events (tenant_no, created_at, exchange_id);
CREATE INDEX usage_events_caller ON usage_events (caller_no, created_at, exchange_id);

-- Sums per UTC hour of `created_at`. Equal to the sum of the events, always:
-- both are written in the same transaction. Null counts add nothing.
-- With row ids: the rows of the running hour lie together, and adding to them
-- touches no index.
CREATE TABLE usage_rollup_hour (
    dim_id INTEGER NOT NULL,
    start_at INTEGER NOT NULL,
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
    UNIQUE (dim_id, start_at)
) STRICT;

-- The same per UTC day, for days that are folded (usage_state.folded_before):
-- equal to the sum of their hours, always.
CREATE TABLE usage_rollup_day (
    dim_id INTEGER NOT NULL,
    start_at INTEGER NOT NULL,
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
    PRIMARY KEY (dim_id, start_at)
) STRICT, WITHOUT ROWID;

-- folded_before: days that start before are in usage_rollup_day.
-- events_from: events that began before may have been deleted.
CREATE TABLE usage_state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    folded_before INTEGER NOT NULL,
    events_from INTEGER NOT NULL
) STRICT;
INSERT INTO usage_state (id, folded_before, events_from) VALUES (1, 0, 0);
