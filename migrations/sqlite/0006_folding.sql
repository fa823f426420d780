-- Of the day that starts at folded_before, dims up to this one are in
-- usage_rollup_day as well.
ALTER TABLE usage_state ADD COLUMN folded_dims INTEGER NOT NULL DEFAULT 0;
