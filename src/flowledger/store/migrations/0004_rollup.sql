-- Sums over calls by hour and by day, kept in the transaction that stores the calls, so that a
-- question over a million calls reads thousands of rows. `span` is 1 or 24 hours, `start` the hour
-- since 1970 a span begins with. Sums count calls that asked a model, as `llm_measured` does.

ALTER TABLE llm_calls ADD COLUMN group_id BIGINT;

ALTER TABLE llm_calls ADD COLUMN model_call BOOLEAN;

ALTER TABLE llm_calls ADD COLUMN latency_bucket INTEGER;

ALTER TABLE llm_calls ADD COLUMN confidence DOUBLE PRECISION;

ALTER TABLE llm_calls ADD COLUMN template_match DOUBLE PRECISION;

ALTER TABLE llm_calls ADD COLUMN intent TEXT;

ALTER TABLE llm_calls ADD COLUMN module TEXT;

ALTER TABLE llm_calls ADD COLUMN tab TEXT;

ALTER TABLE llm_calls ADD COLUMN dspy_version TEXT;

CREATE INDEX llm_calls_user ON llm_calls (user_id, start_ms) WHERE user_id IS NOT NULL;

CREATE INDEX llm_calls_session ON llm_calls (session_id, start_ms) WHERE session_id IS NOT NULL;

CREATE INDEX llm_calls_feature ON llm_calls (feature, start_ms);

CREATE INDEX llm_calls_failed ON llm_calls (start_ms) WHERE NOT success;

-- The caller's own tags, to find calls by; a value too long for an index is not in here.
CREATE TABLE llm_tags (
    key VARCHAR(250) NOT NULL,
    value VARCHAR(250) NOT NULL,
    call_id VARCHAR(32) NOT NULL,
    PRIMARY KEY (key, value, call_id)
) /* SQLite: WITHOUT ROWID */;

CREATE INDEX llm_tags_call ON llm_tags (call_id);

-- Every combination of these that a call has had; the id is a hash of them.
CREATE TABLE llm_groups (
    group_id BIGINT NOT NULL PRIMARY KEY,
    experiment_id INTEGER NOT NULL,
    feature TEXT,
    persona_id TEXT,
    provider TEXT,
    model TEXT,
    prompt_version TEXT,
    dspy_version TEXT,
    success BOOLEAN NOT NULL,
    error_type TEXT
);

CREATE TABLE llm_rollup (
    span INTEGER NOT NULL,
    start INTEGER NOT NULL,
    group_id BIGINT NOT NULL,
    calls BIGINT NOT NULL,
    failed BIGINT NOT NULL,
    counted BIGINT NOT NULL,
    input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    total_tokens BIGINT NOT NULL,
    priced BIGINT NOT NULL,
    unpriced BIGINT NOT NULL,
    cost_usd DOUBLE PRECISION NOT NULL,
    estimated BIGINT NOT NULL,
    estimated_cost_usd DOUBLE PRECISION NOT NULL,
    latency_ms DOUBLE PRECISION NOT NULL,
    latency_squared DOUBLE PRECISION NOT NULL,
    confidences BIGINT NOT NULL,
    confidence DOUBLE PRECISION NOT NULL,
    confidence_squared DOUBLE PRECISION NOT NULL,
    template_matches BIGINT NOT NULL,
    template_match DOUBLE PRECISION NOT NULL,
    first_ms BIGINT NOT NULL,
    last_ms BIGINT NOT NULL,
    PRIMARY KEY (span, start, group_id)
) /* SQLite: WITHOUT ROWID */;

-- A histogram of latencies: the bounds of buckets grow by 4 %, see `flowledger.latency`. It has
-- fewer dimensions than a group, or it would have nearly as many rows as there are calls.
CREATE TABLE llm_latencies (
    span INTEGER NOT NULL,
    start INTEGER NOT NULL,
    experiment_id INTEGER NOT NULL,
    feature VARCHAR(250) NOT NULL,
    model VARCHAR(250) NOT NULL,
    latency_bucket INTEGER NOT NULL,
    calls BIGINT NOT NULL,
    PRIMARY KEY (span, start, experiment_id, feature, model, latency_bucket)
) /* SQLite: WITHOUT ROWID */;

-- The same sums by one more thing at a time, of which there are too many for a group.
CREATE TABLE llm_facets (
    span INTEGER NOT NULL,
    start INTEGER NOT NULL,
    facet VARCHAR(20) NOT NULL,
    value VARCHAR(250) NOT NULL,
    experiment_id INTEGER NOT NULL,
    feature VARCHAR(250) NOT NULL,
    calls BIGINT NOT NULL,
    failed BIGINT NOT NULL,
    counted BIGINT NOT NULL,
    input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    total_tokens BIGINT NOT NULL,
    priced BIGINT NOT NULL,
    unpriced BIGINT NOT NULL,
    cost_usd DOUBLE PRECISION NOT NULL,
    estimated BIGINT NOT NULL,
    estimated_cost_usd DOUBLE PRECISION NOT NULL,
    latency_ms DOUBLE PRECISION NOT NULL,
    latency_squared DOUBLE PRECISION NOT NULL,
    confidences BIGINT NOT NULL,
    confidence DOUBLE PRECISION NOT NULL,
    confidence_squared DOUBLE PRECISION NOT NULL,
    template_matches BIGINT NOT NULL,
    template_match DOUBLE PRECISION NOT NULL,
    first_ms BIGINT NOT NULL,
    last_ms BIGINT NOT NULL,
    PRIMARY KEY (span, facet, start, value, experiment_id, feature)
) /* SQLite: WITHOUT ROWID */;

-- Each call as the sums see it: the one place that says what is counted, priced and measured.
-- Only model calls are counted, not tools and not calls that group others (`store/derived.py`).
-- A cost is unpriced where something was used and its price is not known.
CREATE VIEW llm_measured AS
SELECT
    id,
    start_ms,
    start_ms / 3600000 AS hour,
    group_id,
    latency_bucket,
    experiment_id,
    feature,
    persona_id,
    provider,
    model,
    prompt_version,
    dspy_version,
    success,
    error_type,
    user_id,
    session_id,
    user_role,
    environment,
    operation,
    kind,
    intent,
    module,
    1 AS calls,
    CASE WHEN success THEN 0 ELSE 1 END AS failed,
    CASE WHEN total_tokens IS NULL THEN 0 ELSE 1 END AS counted,
    COALESCE(input_tokens, 0) AS input_tokens,
    COALESCE(output_tokens, 0) AS output_tokens,
    COALESCE(total_tokens, 0) AS total_tokens,
    CASE WHEN cost_usd IS NULL THEN 0 ELSE 1 END AS priced,
    CASE
        WHEN cost_usd IS NOT NULL THEN 0
        WHEN success AND model IS NOT NULL THEN 1
        WHEN total_tokens IS NOT NULL THEN 1
        WHEN images IS NOT NULL OR audio_seconds IS NOT NULL THEN 1
        WHEN input_characters IS NOT NULL THEN 1
        ELSE 0
    END AS unpriced,
    COALESCE(cost_usd, 0) AS cost_usd,
    CASE WHEN cost_source = 'listed' AND usage_source = 'estimated' THEN 1 ELSE 0 END AS estimated,
    CASE
        WHEN cost_source = 'listed' AND usage_source = 'estimated' THEN cost_usd
        ELSE 0
    END AS estimated_cost_usd,
    latency_ms,
    latency_ms * latency_ms AS latency_squared,
    CASE WHEN confidence IS NULL THEN 0 ELSE 1 END AS confidences,
    COALESCE(confidence, 0) AS confidence,
    COALESCE(confidence * confidence, 0) AS confidence_squared,
    CASE WHEN template_match IS NULL THEN 0 ELSE 1 END AS template_matches,
    COALESCE(template_match, 0) AS template_match,
    start_ms AS first_ms,
    start_ms AS last_ms
FROM llm_calls
WHERE model_call;
