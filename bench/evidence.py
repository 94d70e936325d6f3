"""Evidence: calls verified a second, what a check of all takes, and what the chain costs."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from bench.places import Databases, postgresql, sqlite, temporary_folder
from bench.processes import Child
from bench.table import Row, at_least, at_most

__all__ = ["measure"]

CALLS, QUICK_CALLS = 1_000_000, 20_000
WHOLE_CALLS, QUICK_WHOLE_CALLS = 100_000, 10_000
FILL_SECONDS = 3600
PER_SECOND = 50_000
CHECK_SECONDS = 5
BATCH = 1200


def measure(quick: bool) -> list[Row]:
    """Calls as a run with a trace, 37 rows each, and as a row of the ledger alone."""
    whole, rows = (QUICK_WHOLE_CALLS, QUICK_CALLS) if quick else (WHOLE_CALLS, CALLS)
    found = [_leaves()]
    for databases in (sqlite, postgresql):
        found += _of(databases, whole, "run+trace")
        found += _of(databases, rows, "ledger")
    return found


def _of(
    databases: Callable[[], AbstractContextManager[Databases]], calls: int, store_as: str
) -> list[Row]:
    from flowledger import config
    from flowledger.audit.evidence import check
    from flowledger.audit.policy import Policy
    from flowledger.audit.proof import verify

    with databases() as places, temporary_folder() as home:
        uri = places.new()
        with Child("bulk", uri=uri, artifact_root="/nowhere") as child:
            child.ask("fill", timeout=FILL_SECONDS, calls=calls, days=29.9, store_as=store_as)
        proof = verify(uri)
        if not proof.intact or proof.calls != calls:
            raise ValueError(f"{proof.calls} of {calls} calls are proven")
        settings = config.load({}, tracking_uri=uri, home=str(home), store_as=store_as)
        started = time.perf_counter()
        found = check(settings, Policy())
        seconds = time.perf_counter() - started
        if found.calls != calls:
            raise ValueError(f"{found.calls} of {calls} calls are checked")
    what = f"{places.kind}, {calls:,} calls as {store_as}"
    return [
        Row(
            subject="evidence",
            what=f"{what}, verified a second",
            value=calls / proof.seconds,
            unit="/s",
            more_is_better=True,
            goal=at_least(PER_SECOND),
        ),
        Row(
            subject="evidence",
            what=f"{what}, check",
            value=seconds,
            unit="s",
            goal=at_most(CHECK_SECONDS) if calls >= CALLS else None,
        ),
    ]


def _leaves() -> Row:
    """Microseconds of processor time that the leaves of one call take when it is stored."""
    from bench.calls import make_calls
    from flowledger.store.entries import entry
    from flowledger.store.leaves import leaves_of
    from flowledger.store.rows import Experiment, make_rows

    entries = [entry(call) for call in make_calls(BATCH)]
    experiments = {one.experiment: Experiment(1, "/nowhere") for one in entries}
    rows = make_rows(entries, experiments, "run+trace").by_table
    took = []
    for _ in range(5):
        started = time.process_time()
        leaves_of(rows)
        took.append((time.process_time() - started) / BATCH * 1e6)
    return Row(subject="evidence", what="leaves of a call when stored", value=min(took), unit="us")
