-- What stands around a call: the jobs and calls it was made in, those made in it, and their spans.

-- name: call_around
-- A call that others were made in.
SELECT id, parent_id, operation AS name, success
FROM llm_calls
WHERE id = :id

-- name: run_around
-- A job's or a stage's run, and the run it is nested in.
SELECT
    r.run_uuid AS id,
    t.value AS parent_id,
    r.name AS name,
    r.status <> 'FAILED' AS success
FROM runs r
LEFT JOIN tags t ON t.run_uuid = r.run_uuid AND t.key = 'mlflow.parentRunId'
WHERE r.run_uuid = :id

-- name: spans_around
-- The spans of a trace, in the order in which they began.
SELECT
    span_id,
    parent_span_id,
    name,
    type,
    status,
    start_time_unix_nano AS start_ns,
    end_time_unix_nano AS end_ns
FROM spans
WHERE trace_id = :trace_id
ORDER BY start_time_unix_nano, span_id
LIMIT :limit

-- name: calls_made_in
-- The calls that were made inside one, in the order in which they began.
SELECT {columns}
FROM tags t
JOIN llm_calls c ON c.id = t.run_uuid
WHERE t.key = 'mlflow.parentRunId' AND t.value = :id
ORDER BY c.start_ms, c.id
LIMIT :limit
