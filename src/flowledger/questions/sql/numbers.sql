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
        feature,
        success,
        input_tokens,
        output_tokens,
        total_tokens,
        cost_usd,
        CASE
            WHEN cost_usd IS NOT NULL THEN 0
            WHEN success AND model IS NOT NULL THEN 1
            WHEN total_tokens IS NOT NULL THEN 1
            WHEN images IS NOT NULL OR audio_seconds IS NOT NULL THEN 1
            ELSE 0
        END AS unpriced,
        latency_ms,
        ROW_NUMBER() OVER (PARTITION BY feature ORDER BY latency_ms) AS place,
        COUNT(*) OVER (PARTITION BY feature) AS places
    FROM llm_calls
    WHERE inner_calls = 0
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
        start_ms,
        success,
        input_tokens,
        output_tokens,
        total_tokens,
        cost_usd,
        CASE
            WHEN cost_usd IS NOT NULL THEN 0
            WHEN success AND model IS NOT NULL THEN 1
            WHEN total_tokens IS NOT NULL THEN 1
            WHEN images IS NOT NULL OR audio_seconds IS NOT NULL THEN 1
            ELSE 0
        END AS unpriced,
        latency_ms,
        ROW_NUMBER() OVER (ORDER BY latency_ms) AS place,
        COUNT(*) OVER () AS places
    FROM llm_calls
    WHERE inner_calls = 0
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
SELECT error_type, COUNT(*) AS calls
FROM llm_calls
WHERE inner_calls = 0 AND NOT success
GROUP BY error_type
ORDER BY COUNT(*) DESC, error_type

-- name: calls_of_process
-- How many calls of one process are stored, counted as above.
SELECT COUNT(*) AS calls
FROM llm_calls
WHERE producer_id = :producer_id AND inner_calls = 0
