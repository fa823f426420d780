-- Quotas and the ledger of their windows.

-- What is limited. Its identity is scope, scope_id, metric, window_kind and
-- model: a rewrite that keeps it keeps the id, and so what was used.
-- `model` is a glob, empty: every model.
CREATE TABLE quotas (
    id TEXT COLLATE "C" PRIMARY KEY,
    tenant_id TEXT COLLATE "C" NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    scope TEXT COLLATE "C" NOT NULL CHECK (scope IN ('bot', 'project', 'tenant', 'provider_key')),
    scope_id TEXT COLLATE "C" NOT NULL,
    metric TEXT COLLATE "C" NOT NULL,
    window_kind TEXT COLLATE "C" NOT NULL,
    limit_amount BIGINT NOT NULL CHECK (limit_amount > 0),
    model TEXT COLLATE "C" NOT NULL,
    action TEXT COLLATE "C" NOT NULL CHECK (action IN ('block', 'notify')),
    warn_pct BIGINT NOT NULL,
    mode TEXT COLLATE "C" NOT NULL,
    on_exceed TEXT COLLATE "C" NOT NULL,
    on_outage TEXT COLLATE "C" NOT NULL,
    ordering BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    CONSTRAINT quotas_identity_key UNIQUE (scope, scope_id, metric, window_kind, model)
);
CREATE INDEX quotas_tenant ON quotas (tenant_id);

-- One calendar window of one quota. window_end is 0 when it never ends.
-- `extra` was granted on top of the limit; `outstanding` is the sum over its
-- leases of granted - returned - settled where that is positive. 0: not yet
-- warned, not yet exhausted. Windows and leases have no foreign keys: they are
-- written by ingest while quotas come and go; what belongs to none is purged.
CREATE TABLE quota_windows (
    quota_id TEXT COLLATE "C" NOT NULL,
    window_start BIGINT NOT NULL,
    window_end BIGINT NOT NULL,
    extra BIGINT NOT NULL,
    settled BIGINT NOT NULL,
    outstanding BIGINT NOT NULL,
    warned_at BIGINT NOT NULL,
    exhausted_at BIGINT NOT NULL,
    PRIMARY KEY (quota_id, window_start)
);
CREATE INDEX quota_windows_end ON quota_windows (window_end);

-- What one epoch of one node was given of a window; all amounts cumulative. A
-- row is written only while its window's row is locked. expires_at is 0 when
-- its rest was taken back.
CREATE TABLE quota_leases (
    quota_id TEXT COLLATE "C" NOT NULL,
    window_start BIGINT NOT NULL,
    node_id TEXT COLLATE "C" NOT NULL,
    epoch BIGINT NOT NULL,
    granted BIGINT NOT NULL,
    returned BIGINT NOT NULL,
    settled BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (quota_id, window_start, node_id, epoch)
);
CREATE INDEX quota_leases_node ON quota_leases (node_id, epoch);
CREATE INDEX quota_leases_expiry ON quota_leases (expires_at);

-- A window that reached its warning share or its limit, once each.
CREATE TABLE quota_notices (
    id TEXT COLLATE "C" PRIMARY KEY,
    quota_id TEXT COLLATE "C" NOT NULL,
    window_start BIGINT NOT NULL,
    kind TEXT COLLATE "C" NOT NULL CHECK (kind IN ('warning', 'exhausted')),
    used BIGINT NOT NULL,
    limit_amount BIGINT NOT NULL,
    at BIGINT NOT NULL
);
CREATE INDEX quota_notices_quota ON quota_notices (quota_id, at);

-- Changes with every write of quotas; its lock keeps a new quota and the
-- events of ingest in one order.
INSERT INTO settings (name, value, updated_at) VALUES ('quotas.version', '', 0);

-- What an open exchange holds of quotas: JSON.
ALTER TABLE usage_open ADD COLUMN reserved TEXT COLLATE "C" NOT NULL DEFAULT '[]';

INSERT INTO quotas (id, tenant_id, scope, scope_id, metric, window_kind, limit_amount, model, action, warn_pct, mode,
    on_exceed, on_outage, ordering, created_at, updated_at)
SELECT 'quo_' || replace(CAST(gen_random_uuid() AS TEXT), '-', ''), bots.tenant_id, 'bot', bots.id,
    q.value ->> 'metric', q.value ->> 'window', least(CAST(q.value ->> 'limit' AS BIGINT), 1000000000000000000),
    coalesce(q.value ->> 'model', ''), q.value ->> 'action', CAST(q.value ->> 'warn_pct' AS BIGINT),
    q.value ->> 'mode', q.value ->> 'on_exceed', q.value ->> 'on_outage', q.key,
    bots.updated_at, bots.updated_at
FROM bots, jsonb_array_elements(CAST(bots.quotas AS JSONB)) WITH ORDINALITY AS q (value, key);
ALTER TABLE bots DROP COLUMN quotas;
