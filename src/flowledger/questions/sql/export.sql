-- Calls to be taken elsewhere, row by row.

-- name: calls_count
-- How many calls a window has, those that only group others included.
SELECT COUNT(*) AS calls
FROM llm_calls
WHERE {calls}

-- name: every_call
-- All that is kept about each call of a window, in the order in which they began.
SELECT
    id,
    producer_id,
    seq,
    experiment_id,
    parent_id,
    inner_calls,
    start_ms,
    received_ms,
    latency_ms,
    time_to_first_token_ms,
    kind,
    operation,
    feature,
    function,
    provider,
    model,
    model_asked,
    user_id,
    session_id,
    persona_id,
    user_role,
    audit_reason,
    environment,
    input_tokens,
    output_tokens,
    total_tokens,
    cached_input_tokens,
    cache_write_tokens,
    cache_write_1h_tokens,
    reasoning_tokens,
    input_audio_tokens,
    output_audio_tokens,
    input_image_tokens,
    images,
    audio_seconds,
    input_characters,
    usage_source,
    cost_usd,
    input_cost_usd,
    output_cost_usd,
    cost_source,
    success,
    error_type,
    error_message,
    prompt_name,
    prompt_version,
    prompt_hash,
    details,
    content,
    {span} AS span
FROM llm_calls c
WHERE {calls}
    AND {matches}
ORDER BY start_ms, id
