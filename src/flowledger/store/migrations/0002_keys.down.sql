-- Every key for ingest: who sends calls with one gets 401 until there are new ones.

DROP TABLE llm_keys;
