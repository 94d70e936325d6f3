-- Two versions of flowledger may write to one database while one replaces the other. A step marked
-- as breaking keeps writers that do not know it from writing, and a call that was stored without
-- being summed up is found through an index that holds no other.

ALTER TABLE llm_schema ADD COLUMN breaking BOOLEAN;

CREATE INDEX llm_calls_unsummed ON llm_calls (id) WHERE group_id IS NULL;
