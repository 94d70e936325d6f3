-- Files that still wait for the artifact store, and which records beside calls are known: one that
-- is delivered again is written again. Jobs, spans and logged values stay in MLflow's tables.

DROP TABLE llm_artifacts;

DROP TABLE llm_records;
