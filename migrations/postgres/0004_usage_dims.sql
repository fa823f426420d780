-- Usage, narrower: what exchanges have in common is written once and named by a
-- number, sums are kept per number, and days are summed up beside hours.
-- What is in the old table is carried over by the release that applies this
-- step, in the same transaction (`store/usage_convert.rs`).
ALTER TABLE usage_events RENAME TO usage_events_before;
DROP INDEX usage_events_tenant;
DROP INDEX usage_events_bot;
ALTER INDEX usage_events_pkey RENAME TO usage_events_before_pkey;
DROP TABLE usage_rollup_hour;

-- What sums are kept of. A row of kind `exchange` has all columns; the other
-- kinds leave out what they do not tell apart: `model` bot, labels and key;
-- `key` all but tenant, project and key; `bot` all but tenant, project, bot and
-- labels. `tenant` and `caller` (tenant and bot) only give a number to what events are found by.
-- digest: of kind and columns; unique where long texts cannot be.
CREATE TABLE usage_dims (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest BYTEA NOT NULL CONSTRAINT usage_dims_digest_key UNIQUE,
    kind TEXT COLLATE "C" NOT NULL CHECK (kind IN ('exchange', 'model', 'key', 'bot', 'tenant', 'caller')),
    tenant_id TEXT COLLATE "C" NOT NULL,
    project_id TEXT COLLATE "C" NOT NULL,
    bot_id TEXT COLLATE "C" NOT NULL,
    labels TEXT COLLATE "C" NOT NULL,
    vendor TEXT COLLATE "C" NOT NULL,
    model TEXT COLLATE "C" NOT NULL,
    provider_key_id TEXT COLLATE "C" NOT NULL,
    status_code BIGINT NOT NULL,
    outcome TEXT COLLATE "C" NOT NULL,
    -- Of an `exchange`: the wider rows it is also summed up in.
    model_dim BIGINT,
    key_dim BIGINT,
    bot_dim BIGINT
);
CREATE INDEX usage_dims_place ON usage_dims (tenant_id, kind, bot_id);

-- Where events come from and what else many of them share.
CREATE TABLE usage_origins (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest BYTEA NOT NULL CONSTRAINT usage_origins_digest_key UNIQUE,
    node_id TEXT COLLATE "C" NOT NULL,
    epoch BIGINT NOT NULL,
    shard BIGINT NOT NULL,
    stream BIGINT NOT NULL CHECK (stream IN (0, 1)),
    usage_source TEXT COLLATE "C" NOT NULL,
    config_version TEXT COLLATE "C" NOT NULL,
    price_ref TEXT COLLATE "C" NOT NULL,
    error_code TEXT COLLATE "C" NOT NULL
);

-- One row per exchange. Null text: none. Null count: the vendor did not say.
-- exchange_id: the 16 bytes of the id. tried: a JSON array of attempts; a number
-- alone is one attempt of so many milliseconds whose key and status are the
-- exchange's.
-- By month, so that old months can be dropped. The key must hold created_at;
-- an exchange is still counted once: positions are, by the cursor, and a record
-- that comes again in another epoch is the same record, with the same time.
CREATE TABLE usage_events (
    exchange_id BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    tenant_no BIGINT NOT NULL,
    caller_no BIGINT NOT NULL,
    dim_id BIGINT NOT NULL,
    origin_id BIGINT NOT NULL,
    position BIGINT NOT NULL,
    endpoint TEXT COLLATE "C",
    client_request_id TEXT COLLATE "C",
    agent_id TEXT COLLATE "C",
    session_id TEXT COLLATE "C",
    error_message TEXT COLLATE "C",
    input_tokens BIGINT,
    cached_input_tokens BIGINT,
    cache_write_tokens BIGINT,
    output_tokens BIGINT,
    reasoning_tokens BIGINT,
    total_tokens BIGINT,
    reserved_tokens BIGINT NOT NULL,
    tried TEXT COLLATE "C",
    duration_micros BIGINT NOT NULL,
    ttft_micros BIGINT,
    cost_micros BIGINT,
    PRIMARY KEY (exchange_id, created_at)
) PARTITION BY RANGE (created_at);
-- Takes what no month is there for yet.
CREATE TABLE usage_events_default PARTITION OF usage_events DEFAULT;
CREATE INDEX usage_events_tenant ON usage_events (tenant_no, created_at, exchange_id);
CREATE INDEX usage_events_caller ON usage_events (caller_no, created_at, exchange_id);

-- Sums per UTC hour of `created_at`. Equal to the sum of the events, always:
-- both are written in the same transaction. Null counts add nothing.
CREATE TABLE usage_rollup_hour (
    dim_id BIGINT NOT NULL,
    start_at BIGINT NOT NULL,
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
    PRIMARY KEY (dim_id, start_at)
) WITH (fillfactor = 50);

-- The same per UTC day, for days that are folded (usage_state.folded_before):
-- equal to the sum of their hours, always.
CREATE TABLE usage_rollup_day (
    dim_id BIGINT NOT NULL,
    start_at BIGINT NOT NULL,
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
    PRIMARY KEY (dim_id, start_at)
);
CREATE INDEX usage_rollup_hour_start ON usage_rollup_hour USING brin (start_at);
-- folded_before: days that start before are in usage_rollup_day.
-- events_from: events that began before may have been deleted.
CREATE TABLE usage_state (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    folded_before BIGINT NOT NULL,
    events_from BIGINT NOT NULL
);
INSERT INTO usage_state (id, folded_before, events_from) VALUES (1, 0, 0);
