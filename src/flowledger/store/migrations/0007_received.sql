-- What `flowledger recent --follow` looks through: calls by when they were stored. Entries are added
-- at its end alone, so it costs next to nothing.

CREATE INDEX llm_calls_received ON llm_calls (received_ms, id);
