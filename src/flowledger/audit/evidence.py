"""Is the evidence complete? Every call and every number of the window, never the last few."""

import time
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import msgspec
import sqlalchemy as sa

from flowledger.audit.lacking import EPOCH, lacking
from flowledger.audit.missing import dropped, missing, rejected, silent
from flowledger.audit.policy import Policy, seconds_of
from flowledger.audit.shortfalls import Shortfall
from flowledger.config import Settings
from flowledger.questions.engine import open_engine, reading

__all__ = ["Evidence", "check"]

MOST_EXAMPLES = 5
CALLS_WITHOUT_RUN = """
SELECT c.start_ms / 86400000, c.feature, c.user_id, COUNT(*), MIN(c.id), MAX(c.id)
FROM llm_calls c
WHERE {window} AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.run_uuid = c.id)
GROUP BY 1, 2, 3
"""
RUNS_WITHOUT_CALL = """
SELECT COALESCE(r.start_time, 0) / 86400000, e.name, r.user_id, COUNT(*), MIN(r.run_uuid),
    MAX(r.run_uuid)
FROM runs r LEFT JOIN experiments e ON e.experiment_id = r.experiment_id
WHERE {window} AND NOT EXISTS (SELECT 1 FROM llm_calls c WHERE c.id = r.run_uuid)
AND NOT EXISTS (SELECT 1 FROM tags t WHERE t.run_uuid = r.run_uuid AND t.key = 'flowledger.id')
GROUP BY 1, 2, 3
"""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What `check` found: counts first, then where, then examples.

    `holds` is False when something is short that the policy does not allow. Times are Unix
    milliseconds; `newest_ms` is None when there are no calls.
    """

    holds: bool
    calls: int
    first_ms: int | None
    newest_ms: int | None
    shortfalls: list[Shortfall]
    policy: Policy


def check(
    settings: Settings,
    policy: Policy,
    *,
    first_ms: int = 0,
    end_ms: int | None = None,
    experiments: Iterable[int] | None = None,
) -> Evidence:
    """Look for everything that evidence lacks.

    Args:
        settings: where the database and this host's journals are.
        policy: what must hold.
        first_ms, end_ms: which calls, by when they began; all when left out.
        experiments: ids of those that may be seen; None is every one.

    Raises:
        NotFound: nothing is stored there yet.
        StoreError: the database cannot be read.
    """
    engine = open_engine(settings.tracking_uri, settings.statement_seconds)
    place = settings.destination.redacted().tracking_uri
    now_ms = time.time_ns() // 1_000_000
    try:
        with reading(engine, place) as connection:
            seen = None if experiments is None else sorted(experiments)
            window = _window("start_ms", first_ms, end_ms, "", seen)
            calls, oldest, newest = _size(connection, window)
            found = lacking(connection, policy, window)
            if seen is None:  # producers are not told apart by experiment
                grace_ms = 1000 * seconds_of(policy.grace, "grace")
                span = (first_ms, end_ms or now_ms + 1)
                found += [
                    missing(connection, now_ms - grace_ms, span),
                    dropped(connection),
                    rejected(connection, settings),
                    silent(connection, now_ms, seconds_of(policy.silent_after, "silent_after")),
                ]
            runs = _window("r.start_time", first_ms, end_ms, "r.", seen)
            found.append(_apart(connection, "runs_without_call", RUNS_WITHOUT_CALL, runs))
            if "run" in settings.store_as:
                ours = _window("c.start_ms", first_ms, end_ms, "c.", seen)
                found.append(_apart(connection, "calls_without_run", CALLS_WITHOUT_RUN, ours))
            found += _stale(policy, newest, now_ms)
    finally:
        engine.dispose()
    judged = [msgspec.structs.replace(one, allowed=one.kind in policy.allow) for one in found]
    short = [one for one in judged if one.count]
    return Evidence(
        holds=all(one.allowed for one in short),
        calls=calls,
        first_ms=oldest,
        newest_ms=newest,
        shortfalls=sorted(short, key=lambda one: (one.allowed, -one.count)),
        policy=policy,
    )


def _size(connection: sa.Connection, window: str) -> tuple[int, int | None, int | None]:
    query = (
        "SELECT count(*), min(start_ms), max(start_ms) FROM llm_calls"
        f" WHERE {window} AND inner_calls = 0"
    )
    count, oldest, newest = connection.exec_driver_sql(query).one()
    return int(count), oldest, newest


def _window(
    column: str, first_ms: int, end_ms: int | None, prefix: str, experiments: list[int] | None
) -> str:
    parts = [f"{column} >= {int(first_ms)}"] if first_ms else []
    parts += [f"{column} < {int(end_ms)}"] if end_ms is not None else []
    if experiments is not None:
        ids = ", ".join(str(int(one)) for one in experiments) or "NULL"
        parts.append(f"{prefix}experiment_id IN ({ids})")
    return " AND ".join(parts) or "1 = 1"


def _apart(connection: sa.Connection, kind: str, query: str, window: str) -> Shortfall:
    """Calls or runs that the other side does not know."""
    features, users, days = Counter[str](), Counter[str](), Counter[str]()
    ids: set[str] = set()
    for day, feature, user, count, *ends in connection.exec_driver_sql(query.format(window=window)):
        features[feature or ""] += count
        users[user or ""] += count
        days[(EPOCH + timedelta(days=day)).date().isoformat()] += count
        ids.update(ends)
    examples = sorted(ids)[:MOST_EXAMPLES]
    return Shortfall.of(kind, kind.replace("_", " "), features, users, days, examples)


def _stale(policy: Policy, newest_ms: int | None, now_ms: int) -> list[Shortfall]:
    if not policy.fresh_within:
        return []
    limit = 1000 * seconds_of(policy.fresh_within, "fresh_within")
    if newest_ms is not None and newest_ms >= now_ms - limit:
        return []
    told = "there are none" if newest_ms is None else f"the newest began {_moment(newest_ms)} UTC"
    what = f"no call within {policy.fresh_within}: {told}"
    return [Shortfall(kind="stale", what=what, count=1, examples=[])]


def _moment(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
