-- Which user each process belongs to: whoever sends its next record becomes its sender.

DROP TABLE llm_senders;
