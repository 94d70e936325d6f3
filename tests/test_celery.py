"""Celery: a task's calls know who asked where the task was sent."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from celery import Celery
from celery.contrib.testing.worker import start_worker

import flowledger
from flowledger.capture.context import EMPTY, current
from flowledger.integrations.celery import HEADER, instrument
from flowledger.records import Call
from flowledger.testing import capture_calls


@pytest.fixture(scope="module")
def app() -> Iterator[Celery]:
    """An application whose tasks record calls, and a worker of it in a thread."""
    app = Celery("shop", broker="memory://", backend="cache+memory://")
    level = logging.getLogger().level  # the worker sets its own, and for good
    app.conf.update(task_always_eager=False, broker_connection_retry_on_startup=True)

    @app.task(name="shop.ask", bind=True)  # type: ignore[untyped-decorator]
    def ask(self: Any, again: bool = False, chained: bool = False) -> None:
        flowledger.record(model="gpt-4o")
        if again:
            ask.delay()
        if chained:
            raise ValueError("bad")

    assert instrument()
    assert instrument()
    with start_worker(app, perform_ping_check=False, shutdown_timeout=30):
        yield app
    logging.getLogger().setLevel(level)


@contextmanager
def somebody() -> Iterator[None]:
    with flowledger.context(
        user_id="ana", session_id="s-1", audit_reason="refund", feature="search",
        tags={"request_id": "r-1"},
    ):  # fmt: skip
        yield


def who(call: Call) -> tuple[Any, ...]:
    actor = call.actor
    return (
        actor.user_id,
        actor.session_id,
        actor.audit_reason,
        call.feature,
        call.tags["request_id"],
    )


ANA = ("ana", "s-1", "refund", "search", "r-1")


def test_a_task_runs_for_who_sent_it(app: Celery) -> None:
    with capture_calls() as calls:
        with somebody():
            sent = app.tasks["shop.ask"].delay()
        sent.get(timeout=30)
    [call] = calls
    assert ANA == who(call)
    assert ("shop.ask", sent.id) == (call.tags["celery_task"], call.tags["celery_task_id"])


def test_a_task_sent_by_a_task_is_for_the_same_user(app: Celery) -> None:
    with capture_calls() as calls:
        with somebody():
            app.tasks["shop.ask"].delay(again=True).get(timeout=30)
        app.tasks["shop.ask"].delay().get(timeout=30)  # after the other two in the one worker
    assert [ANA, ANA] == [who(call) for call in calls[:2]]


def test_nothing_is_left_of_one_task_in_the_next(app: Celery) -> None:
    with capture_calls() as calls:
        with somebody(), pytest.raises(ValueError, match="bad"):
            app.tasks["shop.ask"].delay(chained=True).get(timeout=30)
        app.tasks["shop.ask"].delay().get(timeout=30)
    assert ["ana", None] == [call.actor.user_id for call in calls]


def test_an_eager_task_keeps_the_context_of_its_caller(app: Celery) -> None:
    with capture_calls() as calls:
        with somebody():
            app.tasks["shop.ask"].apply()
        assert EMPTY is current()
    assert [ANA] == [who(call) for call in calls]


@pytest.mark.parametrize("odd", ["text", 7, {"user_id": "x" * 1000, "tags": [1]}, {"user_id": {}}])
def test_an_odd_header_stops_no_task(app: Celery, odd: Any) -> None:
    with capture_calls() as calls:
        app.tasks["shop.ask"].apply_async(headers={HEADER: odd}).get(timeout=30)
    [call] = calls
    assert call.actor.user_id in (None, "{}")


def test_a_switch_in_the_environment_carries_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWLEDGER_ENABLED", "false")
    assert not instrument()
