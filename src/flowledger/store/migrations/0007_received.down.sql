-- Nothing: the index makes `flowledger recent --follow` quick, no more.

DROP INDEX llm_calls_received;
