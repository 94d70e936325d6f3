-- The ledger beside MLflow's tables. Times are Unix milliseconds, money is US dollars.
-- A call with inner calls groups them: those asked a model, it did not, and is not counted as one.
-- A NULL cost is an unknown price, a NULL token count an unknown number: neither is ever 0.

CREATE TABLE llm_calls (
    id VARCHAR(32) NOT NULL PRIMARY KEY,
    producer_id VARCHAR(32) NOT NULL,
    seq BIGINT NOT NULL,
    experiment_id INTEGER NOT NULL,
    parent_id VARCHAR(32),
    inner_calls BIGINT NOT NULL,
    start_ms BIGINT NOT NULL,
    received_ms BIGINT NOT NULL,
    latency_ms DOUBLE PRECISION NOT NULL,
    time_to_first_token_ms DOUBLE PRECISION,
    kind TEXT NOT NULL,
    operation TEXT NOT NULL,
    feature TEXT,
    function TEXT,
    provider TEXT,
    model TEXT,
    model_asked TEXT,
    user_id TEXT,
    session_id TEXT,
    persona_id TEXT,
    user_role TEXT,
    audit_reason TEXT,
    environment TEXT,
    input_tokens BIGINT,
    output_tokens BIGINT,
    total_tokens BIGINT,
    cached_input_tokens BIGINT,
    cache_write_tokens BIGINT,
    cache_write_1h_tokens BIGINT,
    reasoning_tokens BIGINT,
    input_audio_tokens BIGINT,
    output_audio_tokens BIGINT,
    input_image_tokens BIGINT,
    images BIGINT,
    audio_seconds DOUBLE PRECISION,
    input_characters BIGINT,
    usage_source TEXT,
    cost_usd DOUBLE PRECISION,
    input_cost_usd DOUBLE PRECISION,
    output_cost_usd DOUBLE PRECISION,
    cost_source TEXT,
    success BOOLEAN NOT NULL,
    error_type TEXT,
    error_message TEXT,
    prompt_name TEXT,
    prompt_version TEXT,
    prompt_hash TEXT,
    details TEXT NOT NULL,
    content TEXT
);

CREATE INDEX llm_calls_start ON llm_calls (start_ms);

CREATE INDEX llm_calls_producer ON llm_calls (producer_id, seq);

CREATE TABLE llm_producers (
    id VARCHAR(32) NOT NULL PRIMARY KEY,
    host TEXT NOT NULL,
    pid BIGINT NOT NULL,
    os_user TEXT NOT NULL,
    source TEXT NOT NULL,
    version TEXT NOT NULL,
    start_ms BIGINT NOT NULL
);

CREATE TABLE llm_gaps (
    producer_id VARCHAR(32) NOT NULL,
    first_seq BIGINT NOT NULL,
    last_seq BIGINT NOT NULL,
    dropped BIGINT NOT NULL,
    reason TEXT NOT NULL,
    seen_ms BIGINT NOT NULL,
    PRIMARY KEY (producer_id, first_seq)
);
