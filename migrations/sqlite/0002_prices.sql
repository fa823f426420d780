-- Prices that were imported or set by hand; the built-in ones are code.
-- tenant_id is empty for prices of the platform. A row is never changed but to
-- end it: what was priced with it names it for good.
CREATE TABLE prices (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    source TEXT NOT NULL CHECK (source IN ('override', 'import')),
    vendor TEXT NOT NULL,
    model TEXT NOT NULL,
    price TEXT NOT NULL,
    effective_from INTEGER NOT NULL,
    ended_at INTEGER,
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX prices_place ON prices (tenant_id, source, vendor, model);

-- Which price `cost_micros` was computed with; empty: none.
ALTER TABLE usage_events ADD COLUMN price_ref TEXT NOT NULL DEFAULT '';
