-- Who delivers the records of a process: its first sender, and nobody else afterwards. Without this
-- anybody who may store records could end another user's jobs or use up its numbers. `user_name` is one
-- of MLflow's users, or empty for collectors, keys and servers without authentication.

CREATE TABLE llm_senders (
    id VARCHAR(32) NOT NULL PRIMARY KEY,
    user_name TEXT NOT NULL
);
