"""A record that no database takes is refused alone, whatever else is delivered with it."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing

import sqlalchemy as sa

from tests.faults.processes import Application, Host, Ledger, stopped, until

IS_REFUSED = {"operation": "poison"}
REFUSE = {
    "sqlite": "CREATE TRIGGER refuse BEFORE INSERT ON llm_calls WHEN NEW.operation = 'poison'"
    " BEGIN SELECT RAISE(ABORT, 'poison'); END",
    "postgresql": "ALTER TABLE llm_calls ADD CONSTRAINT refuse CHECK (operation <> 'poison')",
}
IS_NO_RECORD = {"operation": 7}


def delivered(host: Host, application: Application, *kinds: Mapping[str, object]) -> list[str]:
    """Deliver calls of these kinds in one batch; returns their ids."""
    with stopped([until(host.collector, "a collector runs")]):
        made = [application.ask("record", **fields)[0] for fields in kinds]
    all_stored = IS_REFUSED not in kinds and IS_NO_RECORD not in kinds
    assert all_stored == application.ask("flush")
    return made


def reasons(host: Host) -> list[str]:
    """Why records were rejected, in the words before the details."""
    return sorted(line["reason"].partition(":")[0] for line in host.rejected())


def test_only_the_records_that_cannot_be_stored_are_refused(host: Host, database_uri: str) -> None:
    ledger = Ledger(database_uri)
    application = host.start(database_uri)
    application.ask("calls")
    assert application.ask("flush")
    engine = sa.create_engine(database_uri)
    with engine.begin() as connection:
        connection.exec_driver_sql(REFUSE[engine.dialect.name])
    engine.dispose()

    good = [{"prompt": f"call {number}"} for number in range(100)]
    delivered(host, application, *good, IS_REFUSED, *good, IS_NO_RECORD, *good)
    assert 301 == ledger.count()
    assert ["not a record", "the database refuses it"] == reasons(host)

    delivered(host, application, *good[:2], IS_NO_RECORD, IS_NO_RECORD)
    assert 303 == ledger.count()
    assert 4 == len(host.rejected())

    delivered(host, application, IS_REFUSED, IS_REFUSED)
    assert 303 == ledger.count()
    assert 6 == len(host.rejected())

    delivered(host, application, IS_REFUSED)
    delivered(host, application, *good)
    assert 403 == ledger.count()
    assert 7 == len(host.rejected())


def test_a_database_that_refuses_everything_has_no_record_rejected(
    host: Host, sqlite_uri: str
) -> None:
    application = host.start(sqlite_uri)
    application.ask("calls")
    assert application.ask("flush")
    with closing(sqlite3.connect(sa.make_url(sqlite_uri).database or "")) as database:
        database.execute(
            "CREATE TRIGGER no BEFORE INSERT ON params BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
        application.ask("calls")  # alone in its batch
        until(lambda: "calls wait" in "".join(host.collector_log()), "the refusal is noticed")
        application.ask("calls", count=10)
        database.execute("DROP TRIGGER no")
    assert application.ask("flush")
    Ledger(sqlite_uri).wait_for_once(12, host)
