-- The chain of evidence, as far as its links say it themselves; `flowledger.audit` proves it.

-- name: chain_state
-- How many links there are, when the last one was added, and its hash.
SELECT
    (SELECT COUNT(*) FROM llm_chain) AS links,
    (SELECT at_ms FROM llm_chain ORDER BY number DESC LIMIT 1) AS last_ms,
    (SELECT hash FROM llm_chain ORDER BY number DESC LIMIT 1) AS head

-- name: chain_changes
-- The latest changes of what was stored before: corrections, removals, erasures, purges.
SELECT number, kind, at_ms, records, note
FROM llm_chain
WHERE kind NOT IN ('beginning', 'batch', 'jobs')
ORDER BY number DESC
LIMIT :limit
