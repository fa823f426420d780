-- Quotas and the ledger of their windows.

-- What is limited. Its identity is scope, scope_id, metric, window_kind and
-- model: a rewrite that keeps it keeps the id, and so what was used.
-- `model` is a glob, empty: every model.
CREATE TABLE quotas (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    scope TEXT NOT NULL CHECK (scope IN ('bot', 'project', 'tenant', 'provider_key')),
    scope_id TEXT NOT NULL,
    metric TEXT NOT NULL,
    window_kind TEXT NOT NULL,
    limit_amount INTEGER NOT NULL CHECK (limit_amount > 0),
    model TEXT NOT NULL,
    action TEXT NOT NULL CHECK (action IN ('block', 'notify')),
    warn_pct INTEGER NOT NULL,
    mode TEXT NOT NULL,
    on_exceed TEXT NOT NULL,
    on_outage TEXT NOT NULL,
    ordering INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    CONSTRAINT quotas_identity_key UNIQUE (scope, scope_id, metric, window_kind, model)
) STRICT;
CREATE INDEX quotas_tenant ON quotas (tenant_id);

-- One calendar window of one quota. window_end is 0 when it never ends.
-- `extra` was granted on top of the limit; `outstanding` is the sum over its
-- leases of granted - returned - settled where that is positive. 0: not yet
-- warned, not yet exhausted. Windows and leases have no foreign keys: they are
-- written by ingest while quotas come and go; what belongs to none is purged.
CREATE TABLE quota_windows (
    quota_id TEXT NOT NULL,
    window_start INTEGER NOT NULL,
    window_end INTEGER NOT NULL,
    extra INTEGER NOT NULL,
    settled INTEGER NOT NULL,
    outstanding INTEGER NOT NULL,
    warned_at INTEGER NOT NULL,
    exhausted_at INTEGER NOT NULL,
    PRIMARY KEY (quota_id, window_start)
) STRICT, WITHOUT ROWID;
CREATE INDEX quota_windows_end ON quota_windows (window_end);

-- What one epoch of one node was given of a window; all amounts cumulative. A
-- row is written only while its window's row is locked. expires_at is 0 when
-- its rest was taken back.
CREATE TABLE quota_leases (
    quota_id TEXT NOT NULL,
    window_start INTEGER NOT NULL,
    node_id TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    granted INTEGER NOT NULL,
    returned INTEGER NOT NULL,
    settled INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (quota_id, window_start, node_id, epoch)
) STRICT, WITHOUT ROWID;
CREATE INDEX quota_leases_node ON quota_leases (node_id, epoch);
CREATE INDEX quota_leases_expiry ON quota_leases (expires_at);

-- A window that reached its warning share or its limit, once each.
CREATE TABLE quota_notices (
    id TEXT PRIMARY KEY,
    quota_id TEXT NOT NULL,
    window_start INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('warning', 'exhausted')),
    used INTEGER NOT NULL,
    limit_amount INTEGER NOT NULL,
    at INTEGER NOT NULL
) STRICT;
CREATE INDEX quota_notices_quota ON quota_notices (quota_id, at);

-- Changes with every write of quotas; its lock keeps a new quota and the
-- events of ingest in one order.
INSERT INTO settings (name, value, updated_at) VALUES ('quotas.version', '', 0);

-- What an open exchange holds of quotas: JSON.
ALTER TABLE usage_open ADD COLUMN reserved TEXT NOT NULL DEFAULT '[]';

INSERT INTO quotas (id, tenant_id, scope, scope_id, metric, window_kind, limit_amount, model, action, warn_pct, mode,
    on_exceed, on_outage, ordering, created_at, updated_at)
SELECT 'quo_' || lower(hex(randomblob(16))), bots.tenant_id, 'bot', bots.id, q.value ->> 'metric',
    q.value ->> 'window', min(CAST(q.value ->> 'limit' AS INTEGER), 1000000000000000000),
    coalesce(q.value ->> 'model', ''), q.value ->> 'action', CAST(q.value ->> 'warn_pct' AS INTEGER),
    q.value ->> 'mode', q.value ->> 'on_exceed', q.value ->> 'on_outage', CAST(q.key AS INTEGER),
    bots.updated_at, bots.updated_at
FROM bots, json_each(bots.quotas) AS q;
ALTER TABLE bots DROP COLUMN quotas;
