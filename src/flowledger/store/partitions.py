"""`llm_calls` by month, on PostgreSQL: a partition for the ids of each month, and one for the rest.

Ids are UUIDv7 in hex, so a month is a range of them, and the primary key stays what it is. Whatever
no month was made for, and ids of another kind, are in the partition named `DEFAULT`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import sqlalchemy as sa

from flowledger.errors import ConfigError, StoreMisconfigured
from flowledger.store.replacing import NEW, execute, replaced
from flowledger.store.rows import LEDGER
from flowledger.store.schema import changing

__all__ = [
    "DEFAULT",
    "Month",
    "Parts",
    "keep_ahead",
    "look",
    "one_table",
    "partition",
    "this_month",
]

DEFAULT = f"{LEDGER}_default"
AHEAD = 3  # months that are made before they begin
LOOK = f"""
SELECT c.relkind = 'p' AS by_month,
    pg_has_role(c.relowner, 'USAGE') AND has_schema_privilege(c.relnamespace, 'CREATE') AS ours,
    ARRAY(SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = c.oid) AS tables
FROM pg_class c WHERE c.oid = to_regclass('{LEDGER}')
"""
OWNER = f"SELECT relowner::regrole::text FROM pg_class WHERE oid = '{LEDGER}'::regclass"
# Ids are ranges only where the database sorts hex as bytes; in Danish "aa" comes after "ff".
SORTS_HEX = """
SELECT array_agg(pair ORDER BY pair) = array_agg(pair ORDER BY pair COLLATE "C") FROM (
    SELECT a || b AS pair FROM regexp_split_to_table('0123456789abcdef', '') a,
        regexp_split_to_table('0123456789abcdef', '') b
) pairs
"""
Progress = Callable[[str, int], object]


class Month(NamedTuple):
    """A calendar month in UTC, with the ids that were made in it."""

    year: int
    month: int

    @property
    def table(self) -> str:
        """The name of its partition."""
        return f"{LEDGER}_{self.year:04}_{self.month:02}"

    @property
    def first(self) -> str:
        """The least id that it can have."""
        began = datetime(self.year, self.month, 1, tzinfo=UTC)
        return f"{round(began.timestamp()) * 1000:012x}{'0' * 20}"

    @property
    def beyond(self) -> str:
        """The least id of the month after."""
        return self.plus(1).first

    def plus(self, months: int) -> "Month":
        """The month so many later."""
        years, month = divmod(self.month - 1 + months, 12)
        return Month(self.year + years, month + 1)

    def __str__(self) -> str:
        return f"{self.year:04}-{self.month:02}"


# The oldest that is made, however old an id says it is.
EARLIEST = Month(2020, 1)


class Parts(NamedTuple):
    """How `llm_calls` is kept: in one table, or by month, in those that are made.

    `ours` says whether this user may change it, `tables` names all parts, those of no month too.
    """

    by_month: bool
    ours: bool
    months: list[Month]
    tables: list[str]

    @property
    def ahead(self) -> int:
        """How many months after this one are made without a hole; -1 when this one is not."""
        wanted = this_month()
        while wanted in self.months:
            wanted = wanted.plus(1)
        return (wanted.year - this_month().year) * 12 + wanted.month - this_month().month - 1


def this_month() -> Month:
    """The month that calls are made in now."""
    now = datetime.now(UTC)
    return Month(now.year, now.month)


def look(connection: sa.Connection) -> Parts:
    """How the table is kept; one table on SQLite, and where it is not made yet."""
    if connection.dialect.name != "postgresql":
        return Parts(False, False, [], [])
    found = connection.exec_driver_sql(LOOK).first()
    if found is None:
        return Parts(False, False, [], [])
    return Parts(found.by_month, found.ours, sorted(_months(found.tables)), sorted(found.tables))


def partition(engine: sa.Engine, progress: Progress = lambda name, rows: None) -> list[Month]:
    """Keep calls by month from now on, those that are there too; returns the months that were made.

    It takes one transaction in which nobody stores calls, and questions are answered until its last
    moment. Done again it makes the months that are missing.

    Args:
        engine: the database; our tables are up to date.
        progress: is told the name of each table, and how many rows were moved into it.

    Raises:
        ConfigError: the database knows no partitions.
        StoreMisconfigured: this user may not change tables, somebody else's view is on them, or the
            database sorts ids otherwise than by their time.
    """
    if engine.dialect.name != "postgresql":
        raise ConfigError(
            "partition_calls=month needs PostgreSQL: leave it out here, or give a postgresql:// "
            "address with --backend-store-uri"
        )
    with changing(engine) as connection:
        if look(connection).by_month:
            return _make_missing(connection)
        _check_order(connection)
        _begin(connection)
        months = sorted({*_ahead(), *_holding(connection, LEDGER, _every())})
        with replaced(connection, "PARTITION BY RANGE (id)"):
            for month in months:
                execute(connection, f"CREATE TABLE {month.table} PARTITION OF {NEW} {_of(month)}")
                progress(month.table, _copy(connection, month.table, month.first, month.beyond))
            execute(connection, f"CREATE TABLE {DEFAULT} PARTITION OF {NEW} DEFAULT")
            edges = ["", *(edge for one in months for edge in (one.first, one.beyond)), ""]
            between = zip(edges[::2], edges[1::2], strict=True)
            progress(DEFAULT, sum(_copy(connection, DEFAULT, *edge) for edge in between))
    return months


def one_table(engine: sa.Engine, progress: Progress = lambda name, rows: None) -> bool:
    """Keep all calls in one table again, the way back from `partition`; False where they are.

    Args:
        engine: the database.
        progress: is told the name of each partition, and how many rows were moved out of it.

    Raises:
        StoreMisconfigured: this user may not change tables, or somebody else's view is on them.
    """
    with engine.connect() as connection:
        if not look(connection).by_month:
            return False
    with changing(engine) as connection:
        parts = look(connection)
        if parts.by_month:
            _begin(connection)
            with replaced(connection, ""):
                for name in parts.tables:
                    moved = execute(connection, f"INSERT INTO {NEW} SELECT * FROM {name}")
                    progress(name, moved)
        return parts.by_month


def keep_ahead(engine: sa.Engine) -> list[Month]:
    """Make the months that are missing where calls are kept by month, and this user may.

    Those are this one, some after it, and older ones that calls came late for.

    Returns:
        The months that were made.
    """
    with engine.connect() as connection:
        parts = look(connection)
        if not (parts.by_month and parts.ours and _missing(connection, parts)):
            return []
    with changing(engine) as connection:
        return _make_missing(connection)


def _months(names: Iterable[str]) -> Iterator[Month]:
    for name in names:
        year, _, month = name.removeprefix(f"{LEDGER}_").partition("_")
        if year.isdecimal() and month.isdecimal() and name == Month(int(year), int(month)).table:
            yield Month(int(year), int(month))


def _ahead() -> list[Month]:
    return [this_month().plus(some) for some in range(AHEAD + 1)]


def _every() -> list[Month]:
    """Every month that calls may be of."""
    last, found = _ahead()[-1], [EARLIEST]
    while found[-1] < last:
        found.append(found[-1].plus(1))
    return found


def _of(month: Month) -> str:
    return f"FOR VALUES FROM ('{month.first}') TO ('{month.beyond}')"


def _holding(connection: sa.Connection, table: str, months: Sequence[Month]) -> list[Month]:
    """Those months that this table has a UUIDv7 of."""
    ranges = ", ".join(f"({place}, '{m.first}', '{m.beyond}')" for place, m in enumerate(months))
    found = connection.exec_driver_sql(
        f"SELECT place FROM (VALUES {ranges}) AS m (place, first, beyond) WHERE EXISTS (SELECT FROM"
        f" {table} c WHERE c.id >= first AND c.id < beyond AND substr(c.id, 13, 1) = '7')"
    )
    return [months[place] for place in found.scalars()]


def _missing(connection: sa.Connection, parts: Parts) -> list[Month]:
    not_made = [month for month in _every() if month not in parts.months]
    late = _holding(connection, DEFAULT, not_made) if not_made else []
    return [month for month in not_made if month in late or month in _ahead()]


def _check_order(connection: sa.Connection) -> None:
    if not connection.exec_driver_sql(SORTS_HEX).scalar():
        raise StoreMisconfigured(
            "the collation of this database does not sort hex digits by their value, so months are "
            "no ranges of ids: restore a backup into a database with LOCALE 'C.UTF-8', or leave "
            "partition_calls out"
        )


def _make_missing(connection: sa.Connection) -> list[Month]:
    """Make them, and move their calls out of the default partition."""
    missing = _missing(connection, look(connection))
    if missing:
        _begin(connection)
    for month in missing:
        made, within = month.table, _within(month.first, month.beyond)
        execute(connection, f"CREATE TABLE {made} (LIKE {LEDGER} INCLUDING ALL EXCLUDING INDEXES)")
        execute(
            connection,
            f"WITH moved AS (DELETE FROM {DEFAULT} WHERE {within} RETURNING *)"
            f" INSERT INTO {made} SELECT * FROM moved",
        )
        execute(connection, f"ALTER TABLE {LEDGER} ATTACH PARTITION {made} {_of(month)}")
    return missing


def _begin(connection: sa.Connection) -> None:
    """What is made belongs to the owner of the table, and nobody writes meanwhile."""
    owner = connection.exec_driver_sql(OWNER).scalar()
    execute(connection, f"SET LOCAL ROLE {owner}")
    execute(connection, f"LOCK TABLE {LEDGER} IN EXCLUSIVE MODE")


def _copy(connection: sa.Connection, into: str, first: str, beyond: str) -> int:
    return execute(
        connection, f"INSERT INTO {into} SELECT * FROM {LEDGER} WHERE {_within(first, beyond)}"
    )


def _within(first: str, beyond: str) -> str:
    """A condition on ids; without an edge to that side where it is empty."""
    return " AND ".join([f"id >= '{first}'"] + [f"id < '{beyond}'"] * bool(beyond))
