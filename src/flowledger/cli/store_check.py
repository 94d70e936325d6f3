"""Whether the store answers, asked with a bound on how long that may take."""

import threading
from collections.abc import Callable

import msgspec
import urllib3

from flowledger.cli.reading import open_ledger
from flowledger.config import Settings, without_password
from flowledger.errors import FlowledgerError, NotFound
from flowledger.store.http import is_flowledger

__all__ = ["StoreState", "look_at_store"]

PATIENCE_SECONDS = 4.0
VERSION_TIMEOUT = urllib3.Timeout(total=3)


class StoreState(msgspec.Struct, frozen=True, kw_only=True):
    """What the store is and how it is; `summary` says it in words, `error` when it does not answer.

    `unsupported` is why calls are not written to MLflow's tables at this revision. `last_ms` is
    when the latest call began, Unix milliseconds. `dropped` counts records applications had no room
    for. `months_ahead` counts months after this one that are made, where calls are kept by month.
    """

    place: str
    summary: str = ""
    error: str | None = None
    revision: str | None = None
    unsupported: str | None = None
    records: int | None = None
    last_ms: int | None = None
    dropped: int = 0
    months_ahead: int | None = None


def look_at_store(settings: Settings) -> StoreState:
    """Ask the store; one that takes longer than some seconds does not answer."""
    place = without_password(settings.tracking_uri)
    late = f"{place} did not answer within {PATIENCE_SECONDS:.0f} seconds"
    return _within(PATIENCE_SECONDS, lambda: _ask(settings, place)) or StoreState(
        place=place, error=late
    )


def _within(seconds: float, ask: Callable[[], StoreState]) -> StoreState | None:
    """What was answered in time; a thread that still waits is left behind and holds nobody up."""
    answers: list[StoreState] = []
    thread = threading.Thread(target=lambda: answers.append(ask()), daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else None


def _ask(settings: Settings, place: str) -> StoreState:
    scheme = settings.tracking_uri.partition(":")[0]
    try:
        if scheme in ("http", "https"):
            return _server(settings.tracking_uri, place)
        if scheme == "file":
            return StoreState(place=place, summary="a folder of plain MLflow: slow, and no ledger")
        return _database(settings.tracking_uri, place)
    except NotFound:
        return StoreState(place=place, summary="nothing is stored yet: the first call makes it")
    except FlowledgerError as exc:
        return StoreState(place=place, error=str(exc))
    except Exception as exc:  # noqa: BLE001 - a driver may raise anything; the doctor must say it
        return StoreState(place=place, error=f"{place} cannot be used: {type(exc).__name__}: {exc}")


def _server(url: str, place: str) -> StoreState:
    if is_flowledger(url):
        return StoreState(place=place, summary="a flowledger server, and it answers")
    answer = urllib3.request(
        "GET", url.rstrip("/") + "/version", retries=False, timeout=VERSION_TIMEOUT
    )
    if answer.status != 200:
        return StoreState(
            place=place, error=f"{place} answers {answer.status} and is no MLflow server"
        )
    version = answer.data[:40].decode("utf-8", "replace").strip()
    return StoreState(
        place=place, summary=f"a plain MLflow server, version {version}: slow, and no ledger"
    )


def _database(uri: str, place: str) -> StoreState:
    with open_ledger(uri) as ledger:
        empty = StoreState(
            place=place,
            revision=ledger.revision(),
            unsupported=ledger.unsupported(),
            summary="it answers, and holds no ledger yet",
        )
        try:
            size, losses, parts = ledger.size(), ledger.losses(), ledger.parts()
        except NotFound:
            return empty
    return msgspec.structs.replace(
        empty,
        summary=f"it answers, and holds {size.records:,} records",
        records=size.records,
        last_ms=size.last_ms,
        dropped=losses.dropped,
        months_ahead=parts.ahead if parts.by_month else None,
    )
