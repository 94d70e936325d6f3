-- Nothing that cannot be made again: the sums, and what follows from a call's own metrics and tags.
-- Going forward makes them from the calls.

DROP VIEW llm_measured;

DROP TABLE llm_facets;

DROP TABLE llm_latencies;

DROP TABLE llm_rollup;

DROP TABLE llm_groups;

DROP TABLE llm_tags;

DROP INDEX llm_calls_failed;

DROP INDEX llm_calls_feature;

DROP INDEX llm_calls_session;

DROP INDEX llm_calls_user;

ALTER TABLE llm_calls DROP COLUMN dspy_version;

ALTER TABLE llm_calls DROP COLUMN tab;

ALTER TABLE llm_calls DROP COLUMN module;

ALTER TABLE llm_calls DROP COLUMN intent;

ALTER TABLE llm_calls DROP COLUMN template_match;

ALTER TABLE llm_calls DROP COLUMN confidence;

ALTER TABLE llm_calls DROP COLUMN latency_bucket;

ALTER TABLE llm_calls DROP COLUMN model_call;

ALTER TABLE llm_calls DROP COLUMN group_id;
