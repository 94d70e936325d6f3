-- Records beside calls (beginnings and ends of jobs, spans, logged values, artifacts), each once: a
-- second delivery is known by its number, and a number of a producer that is neither here nor in
-- llm_calls nor in llm_gaps has not arrived yet.

CREATE TABLE llm_records (
    producer_id VARCHAR(32) NOT NULL,
    seq BIGINT NOT NULL,
    id VARCHAR(32) NOT NULL,
    kind TEXT NOT NULL,
    received_ms BIGINT NOT NULL,
    PRIMARY KEY (producer_id, seq)
);

-- Artifacts that the artifact store did not take yet, as the bytes of their records in base64; those
-- it refused for good stay here with the reason.

CREATE TABLE llm_artifacts (
    producer_id VARCHAR(32) NOT NULL,
    seq BIGINT NOT NULL,
    run_id VARCHAR(32) NOT NULL,
    received_ms BIGINT NOT NULL,
    refused BOOLEAN NOT NULL,
    reason TEXT NOT NULL,
    record TEXT NOT NULL,
    PRIMARY KEY (producer_id, seq)
);
