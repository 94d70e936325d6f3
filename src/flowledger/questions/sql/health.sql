-- How the ledger itself is: what it holds and what never reached it.

-- name: ledger_size
-- How many records are stored, calls that made others included, and when the last one began.
SELECT COUNT(*) AS records, MAX(start_ms) AS last_ms
FROM llm_calls

-- name: dropped_records
-- How many records applications counted but could not keep, and from how many processes.
SELECT
    CAST(COALESCE(SUM(dropped), 0) AS BIGINT) AS dropped,
    COUNT(DISTINCT producer_id) AS processes
FROM llm_gaps

-- name: calls_of_process
-- How many calls of one process are stored, those that made calls inside not counted.
SELECT COUNT(*) AS calls
FROM llm_calls
WHERE producer_id = :producer_id AND inner_calls = 0
