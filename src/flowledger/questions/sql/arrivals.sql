-- Calls in the order in which they were stored, which is not the order in which they began.

-- name: calls_received
-- Calls that were stored from a moment on, beyond the one that was read last.
SELECT {columns}
FROM llm_calls
WHERE {matching}
    AND received_ms >= :after_ms
    AND (received_ms > :after_ms OR id > :after_id)
ORDER BY received_ms, id
LIMIT :limit
