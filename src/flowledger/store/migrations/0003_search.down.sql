-- Nothing but speed: MLflow's own searches.

DROP INDEX llm_tags_parent;

DROP INDEX llm_tags_session;

DROP INDEX llm_tags_user;

DROP INDEX llm_trace_info_time;

DROP INDEX llm_runs_start;
