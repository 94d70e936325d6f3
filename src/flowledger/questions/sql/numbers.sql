-- Numbers over all calls that are stored, never over the last so many.
--
-- A call that made calls inside, such as a tracked function around a client, is not counted: the
-- calls inside are. A cost is unpriced where something was used and its price is not known. A
-- percentile is the smallest latency that so many per cent of the calls do not exceed (nearest
-- rank), failed calls included.

-- name: calls_by_feature
-- Calls, failures, tokens, cost and latency of each feature, the busiest first.
WITH counted AS (
    SELECT
        c.feature,
        c.success,
        c.input_tokens,
        c.output_tokens,
        c.total_tokens,
        c.cost_usd,
        CASE
            WHEN c.cost_usd IS NOT NULL THEN 0
            WHEN c.success AND c.model IS NOT NULL THEN 1
            WHEN c.total_tokens IS NOT NULL THEN 1
            WHEN c.images IS NOT NULL OR c.audio_seconds IS NOT NULL THEN 1
            ELSE 0
        END AS unpriced,
        c.latency_ms,
        ROW_NUMBER() OVER (PARTITION BY c.feature ORDER BY c.latency_ms) AS place,
        COUNT(*) OVER (PARTITION BY c.feature) AS places
    FROM llm_calls c
    LEFT JOIN (
        SELECT DISTINCT parent_id FROM llm_calls WHERE parent_id IS NOT NULL
    ) outer_calls ON outer_calls.parent_id = c.id
    WHERE outer_calls.parent_id IS NULL
)
SELECT
    feature,
    COUNT(*) AS calls,
    CAST(SUM(CASE WHEN success THEN 0 ELSE 1 END) AS BIGINT) AS failed,
    CAST(SUM(input_tokens) AS BIGINT) AS input_tokens,
    CAST(SUM(output_tokens) AS BIGINT) AS output_tokens,
    CAST(SUM(total_tokens) AS BIGINT) AS total_tokens,
    SUM(cost_usd) AS cost_usd,
    CAST(SUM(unpriced) AS BIGINT) AS unpriced,
    MIN(CASE WHEN 100 * place >= 50 * places THEN latency_ms END) AS p50_ms,
    MIN(CASE WHEN 100 * place >= 95 * places THEN latency_ms END) AS p95_ms
FROM counted
GROUP BY feature
ORDER BY COUNT(*) DESC, feature

-- name: call_totals
-- The same numbers over all features together, and when the first and the last call began.
WITH counted AS (
    SELECT
        c.start_ms,
        c.success,
        c.input_tokens,
        c.output_tokens,
        c.total_tokens,
        c.cost_usd,
        CASE
            WHEN c.cost_usd IS NOT NULL THEN 0
            WHEN c.success AND c.model IS NOT NULL THEN 1
            WHEN c.total_tokens IS NOT NULL THEN 1
            WHEN c.images IS NOT NULL OR c.audio_seconds IS NOT NULL THEN 1
            ELSE 0
        END AS unpriced,
        c.latency_ms,
        ROW_NUMBER() OVER (ORDER BY c.latency_ms) AS place,
        COUNT(*) OVER () AS places
    FROM llm_calls c
    LEFT JOIN (
        SELECT DISTINCT parent_id FROM llm_calls WHERE parent_id IS NOT NULL
    ) outer_calls ON outer_calls.parent_id = c.id
    WHERE outer_calls.parent_id IS NULL
)
SELECT
    COUNT(*) AS calls,
    CAST(COALESCE(SUM(CASE WHEN success THEN 0 ELSE 1 END), 0) AS BIGINT) AS failed,
    CAST(SUM(input_tokens) AS BIGINT) AS input_tokens,
    CAST(SUM(output_tokens) AS BIGINT) AS output_tokens,
    CAST(SUM(total_tokens) AS BIGINT) AS total_tokens,
    SUM(cost_usd) AS cost_usd,
    CAST(COALESCE(SUM(unpriced), 0) AS BIGINT) AS unpriced,
    MIN(CASE WHEN 100 * place >= 50 * places THEN latency_ms END) AS p50_ms,
    MIN(CASE WHEN 100 * place >= 95 * places THEN latency_ms END) AS p95_ms,
    MIN(start_ms) AS first_ms,
    MAX(start_ms) AS last_ms
FROM counted

-- name: errors_by_type
-- How many calls failed with each type of error, the most frequent first.
SELECT c.error_type, COUNT(*) AS calls
FROM llm_calls c
LEFT JOIN (
    SELECT DISTINCT parent_id FROM llm_calls WHERE parent_id IS NOT NULL
) outer_calls ON outer_calls.parent_id = c.id
WHERE outer_calls.parent_id IS NULL AND NOT c.success
GROUP BY c.error_type
ORDER BY COUNT(*) DESC, c.error_type

-- name: calls_of_process
-- How many calls of one process are stored, counted as above.
SELECT COUNT(*) AS calls
FROM llm_calls c
LEFT JOIN (
    SELECT DISTINCT parent_id FROM llm_calls WHERE producer_id = :producer_id
) outer_calls ON outer_calls.parent_id = c.id
WHERE c.producer_id = :producer_id AND outer_calls.parent_id IS NULL
