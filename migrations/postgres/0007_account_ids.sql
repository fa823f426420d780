-- Who made what lives in a vendor's account, by the id that its answer gave.
-- The first maker stays. Rows have no foreign keys: ingest writes them while bots
-- and keys come and go. `lasting`: 0 when the vendor itself forgets it within
-- weeks. `used_at` moves about once a day while it is used.
CREATE TABLE account_ids (
    tenant_id TEXT COLLATE "C" NOT NULL,
    vendor TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    bot_id TEXT COLLATE "C" NOT NULL,
    provider_key_id TEXT COLLATE "C" NOT NULL,
    lasting BIGINT NOT NULL,
    made_at BIGINT NOT NULL,
    used_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, vendor, id)
);
CREATE INDEX account_ids_bot ON account_ids (bot_id);
CREATE INDEX account_ids_used ON account_ids (lasting, used_at);
