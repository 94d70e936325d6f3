-- Single calls: everything kept about one.

-- name: ids_between
-- Ids from one text up to but without another, as many as asked for: those with a certain beginning.
SELECT id
FROM llm_calls
WHERE id >= :first AND id < :beyond
ORDER BY id
LIMIT :limit

-- name: calls_inside
-- The calls that were made inside a call or a job, which lasted until `beyond_ms`.
SELECT {columns}
FROM llm_calls
WHERE start_ms >= :from_ms AND start_ms <= :beyond_ms AND parent_id = :id
    AND {readable}
ORDER BY start_ms, id
LIMIT :limit

-- name: first_call
-- When the first call of all began.
SELECT MIN(start_ms) AS start_ms
FROM llm_calls

-- name: call_by_id
-- Everything the ledger keeps about one call, and the process that made it.
SELECT
    c.id,
    c.producer_id,
    c.seq,
    c.experiment_id,
    c.parent_id,
    c.inner_calls,
    c.start_ms,
    c.received_ms,
    c.latency_ms,
    c.time_to_first_token_ms,
    c.kind,
    c.operation,
    c.feature,
    c.function,
    c.provider,
    c.model,
    c.model_asked,
    c.user_id,
    c.session_id,
    c.persona_id,
    c.user_role,
    c.audit_reason,
    c.environment,
    c.input_tokens,
    c.output_tokens,
    c.total_tokens,
    c.cached_input_tokens,
    c.cache_write_tokens,
    c.cache_write_1h_tokens,
    c.reasoning_tokens,
    c.input_audio_tokens,
    c.output_audio_tokens,
    c.input_image_tokens,
    c.images,
    c.audio_seconds,
    c.input_characters,
    c.usage_source,
    c.cost_usd,
    c.input_cost_usd,
    c.output_cost_usd,
    c.cost_source,
    c.success,
    c.error_type,
    c.error_message,
    c.prompt_name,
    c.prompt_version,
    c.prompt_hash,
    c.details,
    c.content,
    p.host AS process_host,
    p.pid AS process_pid,
    p.source AS process_source
FROM llm_calls c
LEFT JOIN llm_producers p ON p.id = c.producer_id
WHERE c.id = :id
