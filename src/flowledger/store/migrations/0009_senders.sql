-- Who delivers the records of a process: its first sender, and nobody else afterwards. Without this
-- anybody who may store records could end another user's jobs or use up its numbers. `kind` is `user`,
-- `key`, `anyone` (a server without authentication) or `database` (a collector that writes directly).

CREATE TABLE llm_senders (
    id VARCHAR(32) NOT NULL PRIMARY KEY,
    kind VARCHAR(20) NOT NULL,
    name TEXT NOT NULL
);
