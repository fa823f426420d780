-- Sums per UTC day by the agent and the session that clients told: of the events
-- that began before usage_state.sessions_before, equal to their sum, always.
-- dim_id: a row of usage_dims of kind `bot`. Empty text: none was told. Days go
-- with their events.
CREATE TABLE usage_session_day (
    dim_id INTEGER NOT NULL,
    start_at INTEGER NOT NULL,
    agent TEXT NOT NULL,
    session TEXT NOT NULL,
    request_count INTEGER NOT NULL,
    error_count INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    total_tokens INTEGER NOT NULL,
    duration_sum_micros INTEGER NOT NULL,
    duration_count INTEGER NOT NULL,
    cost_micros INTEGER NOT NULL,
    PRIMARY KEY (dim_id, start_at, agent, session)
) STRICT, WITHOUT ROWID;
ALTER TABLE usage_state ADD COLUMN sessions_before INTEGER NOT NULL DEFAULT 0;
