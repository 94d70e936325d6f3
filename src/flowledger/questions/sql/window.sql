-- Numbers over all calls of a window, never over the last so many.
--
-- In braces stand what `sources.py` puts there: the sources of numbers, which read a roll-up where
-- the window holds whole hours and days; the sums of every measure; a dimension's column. `columns`
-- are the names in the row that the asker wants, in any file.

-- name: numbers
-- The sums of every measure.
SELECT {sums}
FROM {measured} m

-- name: squares_around
-- The sums of squared distances from a latency and from a confidence.
SELECT
    COALESCE(SUM((latency_ms - :latency_ms) * (latency_ms - :latency_ms)), 0) AS latency_squared,
    COALESCE(SUM(confidences * (confidence - :confidence) * (confidence - :confidence)), 0)
        AS confidence_squared
FROM llm_measured
WHERE {calls}

-- name: numbers_by
-- The sums by one dimension, in the order that is asked for.
SELECT {value} AS value, {sums}
FROM {dimension} m
GROUP BY {value}
ORDER BY {order}, {value}
LIMIT :limit

-- name: numbers_by_group
-- The sums by every combination of what calls are grouped by.
SELECT {columns}, m.*
FROM (SELECT group_id, {sums} FROM {grouped} m GROUP BY group_id) m
LEFT JOIN llm_groups g ON g.group_id = m.group_id

-- name: numbers_by_prompt
-- The sums by prompt version and the version of DSPy it ran with.
SELECT prompt_version AS value, dspy_version, {sums}
FROM {measured} m
WHERE prompt_version IS NOT NULL
GROUP BY prompt_version, dspy_version
ORDER BY MAX(last_ms), dspy_version

-- name: numbers_by_period
-- The sums by spans of time, counted since 1970.
SELECT moment / {moments} AS period, {sums}
FROM {measured} m
GROUP BY moment / {moments}
ORDER BY moment / {moments}

-- name: numbers_by_period_and
-- The sums by spans of time and one dimension.
SELECT moment / {moments} AS period, {value} AS value, {sums}
FROM {dimension} m
GROUP BY moment / {moments}, {value}
ORDER BY moment / {moments}, {value}

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

-- name: latency_histograms_by_period_and
-- The same by spans of time and one dimension.
SELECT moment / {moments} AS period, {value} AS value, latency_bucket,
    CAST(SUM(calls) AS BIGINT) AS calls
FROM {latencies} m
GROUP BY moment / {moments}, {value}, latency_bucket

-- name: calls_page
-- Calls of a window from the latest on, those that only group others included.
SELECT {columns}
FROM llm_calls
WHERE {calls}
    AND start_ms <= :before_ms
    AND (start_ms < :before_ms OR id < :before_id)
ORDER BY start_ms DESC, id DESC
LIMIT :limit

-- name: calls_ranked
-- Calls of a window by one number, those that only group others included.
SELECT {columns}
FROM llm_calls
WHERE {calls}
    AND ({rank} {beyond} :at OR {rank} = :at AND id {beyond} :at_id)
ORDER BY {rank} {way}, id {way}
LIMIT :limit

-- name: calls_to_search
-- The next calls of a window with all the text there is of them, where any of it may match.
SELECT
    c.id,
    c.parent_id,
    c.start_ms,
    c.feature,
    c.operation,
    c.kind,
    c.provider,
    c.model,
    c.user_id,
    c.session_id,
    c.persona_id,
    c.total_tokens,
    c.cost_usd,
    c.latency_ms,
    c.success,
    c.error_type,
    c.error_message,
    c.content,
    s.content AS span
FROM (
    SELECT id
    FROM llm_calls
    WHERE {calls}
        AND start_ms <= :before_ms
        AND (start_ms < :before_ms OR id < :before_id)
    ORDER BY start_ms DESC, id DESC
    LIMIT :most
) looked
JOIN llm_calls c ON c.id = looked.id
LEFT JOIN spans s ON s.trace_id = 'tr-' || c.id AND s.span_id = SUBSTR(c.id, 17)
WHERE {matches}
ORDER BY c.start_ms DESC, c.id DESC

-- name: calls_position
-- The last of the next so many calls of a window.
SELECT id, start_ms
FROM llm_calls
WHERE {calls}
    AND start_ms <= :before_ms
    AND (start_ms < :before_ms OR id < :before_id)
ORDER BY start_ms DESC, id DESC
LIMIT 1 OFFSET :most

-- name: lag
-- How long after their end calls were stored.
SELECT
    COUNT(*) AS calls,
    AVG(received_ms - start_ms - latency_ms) AS mean_ms,
    MAX(received_ms - start_ms - latency_ms) AS most_ms
FROM llm_calls
WHERE {calls}

-- name: failed_calls
-- The latest calls that failed, with what was raised and where in the application.
SELECT id, start_ms, error_type, error_message, feature, model, user_id, user_role, module, tab
FROM llm_calls
WHERE {calls} AND model_call AND NOT success
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
WHERE {calls} AND model_call
ORDER BY start_ms DESC, id DESC
LIMIT :limit

-- name: sessions_page
-- Sessions from the one that was last active on, with the sums over their calls: of those that were
-- active lately. SQLite takes a CROSS JOIN in the order it is written in.
SELECT session_id, {user} AS user_id, COUNT(DISTINCT user_id) AS users, {sums}
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

-- name: sessions_ranked
-- Sessions in the order that is asked for, with the sums over their calls.
SELECT session_id, {user} AS user_id, COUNT(DISTINCT user_id) AS users, {sums}
FROM llm_measured
WHERE {calls} AND session_id IS NOT NULL
GROUP BY session_id
ORDER BY {order}, session_id
LIMIT :limit

-- name: features_of_experiments
-- Which features have had calls, and in which experiments.
SELECT DISTINCT feature, experiment_id
FROM llm_groups
ORDER BY experiment_id, feature
