-- Four users with no more rights than they need. Run it as a superuser in the database that holds
-- MLflow's tables and ours, once before the first `flowledger migrate` and again after each later
-- one; running it again changes nothing else:
--
--     psql --set ON_ERROR_STOP=1 --dbname mlflow --file roles.sql
--
-- flowledger_owner   owns the tables: for `flowledger migrate` and `mlflow db upgrade`
-- flowledger_writer  reads and writes rows: for the server; it adds links to the chain of evidence and
--                    changes none, nor what says which version tables are of
-- flowledger_collector  adds what applications recorded: for collectors; it changes no call that is
--                    stored, and neither reads nor writes keys, MLflow's users and their permissions
-- flowledger_reader  reads: for analytics, and neither keys nor passwords
--
-- They have no passwords yet: give each one with \password in psql.

BEGIN;

DO $$
DECLARE
    made text;
BEGIN
    FOREACH made IN ARRAY ARRAY[
        'flowledger_owner', 'flowledger_writer', 'flowledger_collector', 'flowledger_reader'
    ] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = made) THEN
            EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE', made);
        END IF;
    END LOOP;
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format(
        'GRANT CONNECT ON DATABASE %I TO'
        ' flowledger_owner, flowledger_writer, flowledger_collector, flowledger_reader',
        current_database()
    );
END
$$;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO flowledger_owner;
GRANT USAGE ON SCHEMA public TO flowledger_writer, flowledger_collector, flowledger_reader;

-- Tables that were made by somebody else before. Sequences and indexes go with their tables.
DO $$
DECLARE
    found record;
BEGIN
    FOR found IN
        SELECT c.oid::regclass AS name, c.relkind
        FROM pg_class c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v')
            AND NOT EXISTS (
                SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e'
            )
    LOOP
        EXECUTE format(
            'ALTER %s %s OWNER TO flowledger_owner',
            CASE found.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, found.name
        );
    END LOOP;
END
$$;

GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO flowledger_writer;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO flowledger_writer;
ALTER DEFAULT PRIVILEGES FOR ROLE flowledger_owner IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO flowledger_writer;
ALTER DEFAULT PRIVILEGES FOR ROLE flowledger_owner IN SCHEMA public
    GRANT USAGE ON SEQUENCES TO flowledger_writer;

-- No default for these two: a table that a later step adds is decided on when this runs again.
GRANT SELECT ON ALL TABLES IN SCHEMA public TO flowledger_collector, flowledger_reader;

-- Of a stored call a collector may change what follows from its other columns, and nothing else: it
-- sums calls up that a flowledger from before the sums stored.
DO $$
DECLARE
    given record;
BEGIN
    FOR given IN
        SELECT these.rights, name FROM (VALUES
            ('INSERT', ARRAY[
                'experiment_tags', 'params', 'metrics', 'trace_tags', 'trace_request_metadata',
                'entity_associations', 'llm_calls', 'llm_tags', 'llm_groups', 'llm_records',
                'llm_producers', 'llm_senders', 'llm_rejected', 'llm_chain'
            ]),
            ('INSERT, UPDATE', ARRAY[
                'experiments', 'runs', 'latest_metrics', 'tags', 'trace_info', 'spans',
                'sql_trace_rollup_rebuild_queue', 'llm_gaps', 'llm_rollup', 'llm_latencies',
                'llm_facets'
            ]),
            ('INSERT, UPDATE, DELETE', ARRAY['llm_artifacts']),
            (
                'UPDATE (prompt_version, group_id, model_call, latency_bucket, confidence, template_match,'
                ' intent, module, tab, dspy_version)',
                ARRAY['llm_calls']
            )
        ) AS these (rights, names), unnest(names) AS name
        WHERE to_regclass('public.' || name) IS NOT NULL
    LOOP
        EXECUTE format('GRANT %s ON public.%I TO flowledger_collector', given.rights, given.name);
    END LOOP;
    IF to_regclass('public.experiments') IS NOT NULL THEN
        EXECUTE format(
            'GRANT USAGE ON SEQUENCE %s TO flowledger_collector',
            pg_get_serial_sequence('public.experiments', 'experiment_id')
        );
    END IF;
END
$$;

-- What these may less: our keys, MLflow's users, its secrets and those of its webhooks are not
-- for analytics nor for collectors; the chain only grows; versions are the owner's to change.
DO $$
DECLARE
    less record;
BEGIN
    FOR less IN
        SELECT * FROM (VALUES
            ('ALL', 'llm_keys', 'flowledger_reader'),
            ('ALL', 'llm_keys', 'flowledger_collector'),
            ('ALL', 'users', 'flowledger_reader'),
            ('ALL', 'users', 'flowledger_collector'),
            ('ALL', 'secrets', 'flowledger_reader'),
            ('ALL', 'secrets', 'flowledger_collector'),
            ('ALL', 'webhooks', 'flowledger_reader'),
            ('ALL', 'webhooks', 'flowledger_collector'),
            ('UPDATE, DELETE', 'llm_chain', 'flowledger_writer'),
            ('INSERT, UPDATE, DELETE', 'llm_schema', 'flowledger_writer'),
            ('INSERT, UPDATE, DELETE', 'alembic_version', 'flowledger_writer'),
            ('INSERT, UPDATE, DELETE', 'alembic_version_auth', 'flowledger_writer')
        ) AS given (rights, name, who)
        WHERE to_regclass('public.' || name) IS NOT NULL
    LOOP
        EXECUTE format('REVOKE %s ON public.%I FROM %I', less.rights, less.name, less.who);
    END LOOP;
END
$$;

-- MLflow's own statements have no time-out of their own; ours say theirs in each transaction.
ALTER ROLE flowledger_writer SET statement_timeout = '60s';
ALTER ROLE flowledger_writer SET idle_in_transaction_session_timeout = '60s';
ALTER ROLE flowledger_collector SET statement_timeout = '60s';
ALTER ROLE flowledger_collector SET idle_in_transaction_session_timeout = '60s';
ALTER ROLE flowledger_reader SET statement_timeout = '60s';
ALTER ROLE flowledger_reader SET idle_in_transaction_session_timeout = '60s';
ALTER ROLE flowledger_reader SET default_transaction_read_only = on;

COMMIT;
