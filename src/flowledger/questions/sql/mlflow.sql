-- What stands in MLflow's own tables beside the ledger. Each by its primary key: the ledger may
-- live in another database one day.

-- name: experiment_name
-- The name of the MLflow experiment a call went to.
SELECT name
FROM experiments
WHERE experiment_id = :experiment_id

-- name: span_content
-- A call's trace: its one span, as JSON, with what was asked and answered.
SELECT content
FROM spans
WHERE trace_id = :trace_id AND span_id = :span_id

-- name: spans_of_trace
-- The spans of a trace in the order they began; times are nanoseconds, content is JSON.
SELECT
    span_id,
    parent_span_id,
    name,
    status,
    start_time_unix_nano AS start_ns,
    end_time_unix_nano AS end_ns
FROM spans
WHERE trace_id = :trace_id AND {readable}
ORDER BY start_time_unix_nano, span_id
LIMIT :limit

-- name: run_of_call
-- Whether a call has a run: its id, where it has.
SELECT run_uuid
FROM runs
WHERE run_uuid = :id

-- name: run_tag
-- One tag of a run.
SELECT value
FROM tags
WHERE run_uuid = :run_id AND key = :key

-- name: mlflow_revision
-- The Alembic revision of MLflow's tables.
SELECT version_num AS revision
FROM alembic_version

-- name: experiments
-- Every MLflow experiment, deleted ones included.
SELECT experiment_id, name, lifecycle_stage
FROM experiments
ORDER BY experiment_id
