-- What all bots of a tenant together may use per minute and at one time; null:
-- no limit.
ALTER TABLE tenants ADD COLUMN requests_per_minute BIGINT;
ALTER TABLE tenants ADD COLUMN tokens_per_minute BIGINT;
ALTER TABLE tenants ADD COLUMN max_concurrency BIGINT;
