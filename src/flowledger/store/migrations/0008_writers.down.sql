-- Nothing but protection: an older flowledger is no longer kept from writing beside a newer one.

DROP INDEX llm_calls_unsummed;

ALTER TABLE llm_schema DROP COLUMN breaking;
