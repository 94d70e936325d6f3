-- Every call's row, with its numbers, and what is known of lost records. MLflow's runs and traces
-- stay as they are.

DROP TABLE llm_gaps;

DROP TABLE llm_producers;

DROP TABLE llm_calls;
