-- Keys for ingest: a SHA-256 of each secret, never the secret. A name is free again once its key
-- is revoked.

CREATE TABLE llm_keys (
    id VARCHAR(32) NOT NULL PRIMARY KEY,
    name VARCHAR(100) NOT NULL,
    secret_hash VARCHAR(64) NOT NULL,
    created_ms BIGINT NOT NULL,
    revoked_ms BIGINT
);

CREATE UNIQUE INDEX llm_keys_name ON llm_keys (name) WHERE revoked_ms IS NULL;
