-- Sums per UTC day by the agent and the session that clients told: of the events
-- that began before usage_state.sessions_before, equal to their sum, always.
-- dim_id: a row of usage_dims of kind `bot`. Empty text: none was told. Days go
-- with their events.
CREATE TABLE usage_session_day (
    dim_id BIGINT NOT NULL,
    start_at BIGINT NOT NULL,
    agent TEXT COLLATE "C" NOT NULL,
    session TEXT COLLATE "C" NOT NULL,
    request_count BIGINT NOT NULL,
    error_count BIGINT NOT NULL,
    input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    total_tokens BIGINT NOT NULL,
    duration_sum_micros BIGINT NOT NULL,
    duration_count BIGINT NOT NULL,
    cost_micros BIGINT NOT NULL,
    PRIMARY KEY (dim_id, start_at, agent, session)
);
ALTER TABLE usage_state ADD COLUMN sessions_before BIGINT NOT NULL DEFAULT 0;
