-- What a list of experiments and runs asks, by feature; a feature that is NULL stands for all.
-- A call that made calls inside groups them, and is not counted beside them.

-- name: feature_experiments
-- Every feature and the experiment that its calls went to.
SELECT DISTINCT
    feature,
    experiment_id
FROM llm_calls
WHERE feature IS NOT NULL
ORDER BY feature, experiment_id

-- name: latest_of_feature
-- The latest runs of a feature, newest first, groups included.
SELECT
    id,
    start_ms,
    operation,
    model,
    user_id,
    total_tokens,
    cost_usd,
    latency_ms,
    success,
    error_type,
    details
FROM llm_calls
WHERE feature = CAST(:feature AS TEXT) OR CAST(:feature AS TEXT) IS NULL
ORDER BY start_ms DESC, id DESC
LIMIT :limit

-- name: numbers_of_feature
-- Calls, those that succeeded, their mean latency, tokens and cost.
SELECT
    COUNT(*) AS calls,
    CAST(COALESCE(SUM(CASE WHEN success THEN 1 ELSE 0 END), 0) AS BIGINT) AS succeeded,
    AVG(latency_ms) AS mean_ms,
    CAST(SUM(total_tokens) AS BIGINT) AS total_tokens,
    SUM(cost_usd) AS cost_usd
FROM llm_calls
WHERE inner_calls = 0 AND (feature = CAST(:feature AS TEXT) OR CAST(:feature AS TEXT) IS NULL)
