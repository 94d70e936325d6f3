-- The chain of evidence and what is known of erasures and rejected records. Going forward begins a
-- new chain, and calls stored before stand outside of it: export the evidence first.

DROP TABLE llm_rejected;

DROP TABLE llm_erased;

DROP TABLE llm_erasures;

DROP TABLE llm_chain;
