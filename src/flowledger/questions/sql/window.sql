-- Numbers over all calls of a window, never over the last so many.
--
-- In braces stand what `sources.py` puts there: the sources of numbers, which read a roll-up where
-- the window holds whole hours and days; the sums of every measure; a dimension's column.

-- name: numbers
-- The sums of every measure.
SELECT {sums}
FROM {measured} m

-- name: numbers_by
-- The sums by one dimension, the most calls first.
SELECT {value} AS value, {sums}
FROM {dimension} m
GROUP BY {value}
ORDER BY SUM(calls) DESC, {value}
LIMIT :limit

-- name: numbers_by_prompt
-- The sums by prompt version and the version of DSPy it ran with.
SELECT prompt_version AS value, dspy_version, {sums}
FROM {measured} m
WHERE prompt_version IS NOT NULL
GROUP BY prompt_version, dspy_version
ORDER BY MAX(last_ms), dspy_version

-- name: numbers_by_period
-- The sums by spans of time, counted since 1970.
SELECT hour / {hours} AS period, {sums}
FROM {measured} m
GROUP BY hour / {hours}
ORDER BY hour / {hours}

-- name: latency_histogram
-- How many calls are in each bucket of latency.
SELECT latency_bucket, CAST(SUM(calls) AS BIGINT) AS calls
FROM {latencies} m
GROUP BY latency_bucket

-- name: latency_histograms_by
-- The same by one dimension.
SELECT {value} AS value, latency_bucket, CAST(SUM(calls) AS BIGINT) AS calls
FROM {latencies} m
GROUP BY {value}, latency_bucket

-- name: calls_page
-- Calls of a window from the latest on, those that only group others included.
SELECT
    id,
    parent_id,
    start_ms,
    feature,
    operation,
    kind,
    provider,
    model,
    user_id,
    session_id,
    persona_id,
    total_tokens,
    cost_usd,
    latency_ms,
    success,
    error_type
FROM llm_calls
WHERE {calls}
    AND start_ms <= :before_ms
    AND (start_ms < :before_ms OR id < :before_id)
ORDER BY start_ms DESC, id DESC
LIMIT :limit

-- name: failed_calls
-- The latest calls that failed, with what was raised and where in the application.
SELECT id, start_ms, error_type, error_message, feature, model, user_id, user_role, module, tab
FROM llm_calls
WHERE {calls} AND inner_calls = 0 AND NOT success
ORDER BY start_ms DESC, id DESC
LIMIT :limit

-- name: run_details
-- The latest calls with everything a run shows: scores, tokens, the caller's own names.
SELECT
    id,
    experiment_id,
    start_ms,
    latency_ms,
    operation,
    feature,
    provider,
    model,
    user_id,
    session_id,
    persona_id,
    input_tokens,
    output_tokens,
    total_tokens,
    cost_usd,
    success,
    error_type,
    confidence,
    details
FROM llm_calls
WHERE {calls} AND inner_calls = 0
ORDER BY start_ms DESC, id DESC
LIMIT :limit

-- name: sessions_page
-- Sessions from the one that was last active on, with the sums over their calls: of those that were
-- active lately. SQLite takes a CROSS JOIN in the order it is written in.
SELECT session_id, MAX(user_id) AS user_id, {sums}
FROM (
    SELECT DISTINCT session_id AS active
    FROM llm_measured
    WHERE {lately} AND session_id IS NOT NULL
) sessions
CROSS JOIN llm_measured
WHERE {calls} AND session_id = active
GROUP BY session_id
HAVING MAX(start_ms) < :before_ms OR MAX(start_ms) = :before_ms AND session_id < :before_id
ORDER BY MAX(start_ms) DESC, session_id DESC
LIMIT :limit

-- name: features_of_experiments
-- Which features have had calls, and in which experiments.
SELECT DISTINCT feature, experiment_id
FROM llm_groups
ORDER BY experiment_id, feature
