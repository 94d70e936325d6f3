-- The chain: one link for each transaction that stored, corrected, removed or erased something. A
-- link's hash covers the hash before it, so nothing in the middle can be changed, taken or put
-- there. `leaves` holds digests of the rows that were written, record by record and table by table.
-- The first link says how many calls were there before: those stand outside the chain.

CREATE TABLE llm_chain (
    number BIGINT NOT NULL PRIMARY KEY,
    kind VARCHAR(20) NOT NULL,
    at_ms BIGINT NOT NULL,
    records BIGINT NOT NULL,
    note TEXT NOT NULL,
    leaves /* SQLite: BLOB */ BYTEA NOT NULL,
    hash VARCHAR(64) NOT NULL
);

-- What was erased or purged: when, why, by whom, and how far it came. `subject` finds one that was
-- broken off and is empty once it is done, as is `salt`, so that nobody is named here.

CREATE TABLE llm_erasures (
    id VARCHAR(32) NOT NULL PRIMARY KEY,
    kind VARCHAR(20) NOT NULL,
    what TEXT NOT NULL,
    subject TEXT NOT NULL,
    salt TEXT NOT NULL,
    done_by TEXT NOT NULL,
    reason TEXT NOT NULL,
    begun_ms BIGINT NOT NULL,
    ended_ms BIGINT,
    calls BIGINT NOT NULL,
    jobs BIGINT NOT NULL,
    artifacts BIGINT NOT NULL
);

-- Calls and jobs whose content is gone, so that a later purge passes them over.

CREATE TABLE llm_erased (
    record_id VARCHAR(32) NOT NULL PRIMARY KEY,
    erasure_id VARCHAR(32) NOT NULL
) /* SQLite: WITHOUT ROWID */;

-- Records that the store refused for good, by what they said of themselves.

CREATE TABLE llm_rejected (
    producer_id VARCHAR(32) NOT NULL,
    seq BIGINT NOT NULL,
    reason TEXT NOT NULL,
    seen_ms BIGINT NOT NULL,
    PRIMARY KEY (producer_id, seq)
);
