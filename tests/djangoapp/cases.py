"""What is true of the Django application; pytest runs these in a process of their own."""

import asyncio
import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import redirect_stdout
from typing import Any

import django
import pytest

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.djangoapp.settings"
django.setup()

from django.contrib.auth.models import AnonymousUser, User  # noqa: E402 - after setup
from django.core.management import CommandError, call_command  # noqa: E402
from django.db import transaction  # noqa: E402
from django.test import AsyncClient, Client  # noqa: E402

import flowledger  # noqa: E402
from flowledger.records import Call, Job, Logged  # noqa: E402
from flowledger.testing import capture_calls  # noqa: E402
from tests.djangoapp.models import Note, Report  # noqa: E402

HEADERS = {"X-Request-ID": "r-1", "X-Audit-Reason": "refund", "X-Tenant": "acme"}
TRACKING = "/api/v1/mlflow/tracking"


@pytest.fixture(scope="module", autouse=True)
def database() -> None:
    """The tables of the project, and who may come in."""
    call_command("migrate", run_syncdb=True, verbosity=0)
    User.objects.create_user("ana", password="x")
    User.objects.create_user("boss", password="x", is_staff=True)


@pytest.fixture(autouse=True)
def nothing_is_left() -> None:
    """In the place of the suite's own: Django configures recording once, for the process."""


def logged_in(name: str) -> Client:
    client = Client()
    client.force_login(User.objects.get(username=name))
    return client


def one(calls: list[Call]) -> Call:
    [call] = calls
    return call


@pytest.mark.parametrize("path", ["/ask", "/aask", "/stream"])
def test_a_call_has_the_user_the_session_and_the_id_of_its_request(path: str) -> None:
    client = logged_in("ana")
    key = client.session.session_key or ""
    with capture_calls() as calls:
        b"".join(client.get(path, headers=HEADERS))
    call = one(calls)
    assert (str(User.objects.get(username="ana").pk), "refund") == (
        call.actor.user_id,
        call.actor.audit_reason,
    )
    assert hashlib.sha256(key.encode()).hexdigest()[:32] == call.actor.session_id
    assert ({"request_id": "r-1", "tenant": "acme"}, "chat") == (call.tags, call.feature)
    assert key not in str(call)


@pytest.mark.parametrize("path", ["/ask", "/aask", "/astream"])
def test_under_asgi_a_call_has_them_too(path: str) -> None:
    async def ask() -> None:
        client = AsyncClient()
        await client.aforce_login(await User.objects.aget(username="ana"))
        answer = await client.get(path, headers=HEADERS)
        if answer.streaming:
            assert ["a"] == [piece.decode() async for piece in answer]

    with capture_calls() as calls:
        asyncio.run(ask())
    call = one(calls)
    assert (True, "r-1") == (bool(call.actor.user_id), call.tags["request_id"])
    assert call.actor.session_id


def test_nobody_is_named_where_nobody_logged_in() -> None:
    assert not AnonymousUser().is_authenticated
    with capture_calls() as calls:
        Client().get("/ask")
    call = one(calls)
    assert (None, None) == (call.actor.user_id, call.actor.session_id)
    assert 32 == len(call.tags["request_id"])


def test_a_tracked_model_is_a_run_with_its_fields_when_it_is_saved_and_no_call() -> None:
    with capture_calls() as calls:
        report = Report.objects.create(status="done", issues=3)
        report.status = "checked"
        report.save()
        Note.objects.create(text="not tracked")
    begun = [one for one in calls.records if isinstance(one, Job) and one.running]
    created, changed = begun
    logged = next(one for one in calls.records if isinstance(one, Logged))
    assert ["report.created", "report.changed"] == [job.name for job in begun]
    assert (created.id, [("issues", 3.0)]) == (
        logged.run_id,
        [(metric.key, metric.value) for metric in logged.metrics],
    )
    assert ({"status": "done"}, {"status": "checked"}) == (created.params, changed.params)
    assert ("pid_verification", "djangoapp.Report") == (
        created.feature,
        created.tags["django_model"],
    )
    assert [] == calls
    assert "never" not in str(calls.records)


def test_what_is_rolled_back_is_not_recorded() -> None:
    with capture_calls() as calls, transaction.atomic():
        Report.objects.create(status="done")
        transaction.set_rollback(True)
    assert [] == calls.records


def test_a_field_that_is_not_there_stops_no_save(settings_of: dict[str, Any]) -> None:
    settings_of["TRACKED_MODELS"] = {"djangoapp.Report": ["no_such_field"]}
    with capture_calls() as calls:
        assert Report.objects.create(status="done").pk
    assert [] == calls.records


@pytest.fixture
def settings_of() -> Iterator[dict[str, Any]]:
    """The map of our settings, put back at the end."""
    from django.test import override_settings

    from tests.djangoapp.settings import FLOWLEDGER

    changed = dict(FLOWLEDGER)
    with override_settings(FLOWLEDGER=changed):
        yield changed


@pytest.fixture(scope="module")
def stored(database: None) -> None:
    """Three calls of a feature in the ledger, shipped as in production."""
    for latency, error in ((1000, None), (2000, None), (6000, "timeout")):
        flowledger.record(
            feature="pfd",
            operation="generate",
            model="gpt-4o",
            input_tokens=1000,
            output_tokens=100,
            latency_ms=latency,
            error=error,
            metrics={"confidence_score": 0.5},
        )
    assert flowledger.flush(60)


def test_metrics_are_over_all_calls_of_a_feature(stored: None) -> None:
    told = logged_in("boss").get(f"{TRACKING}/metrics/?feature=pfd").json()
    assert "pfd" == told["feature"]
    metrics = told["metrics"]
    assert (3, 3.0, 0.5) == (
        metrics["total_runs"],
        metrics["avg_execution_time"],
        metrics["avg_confidence"],
    )
    assert 66.67 == round(metrics["success_rate"], 2)
    assert (3300, True) == (metrics["total_tokens"], metrics["total_cost"] > 0)


def test_runs_are_the_latest_of_a_feature(stored: None) -> None:
    told = logged_in("boss").get(f"{TRACKING}/runs/?feature=pfd&limit=2").json()
    assert 2 == len(told["runs"])
    run = told["runs"][0]
    assert {0.5} == {run["metrics.confidence_score"] for run in told["runs"]}
    assert 32 == len(run["run_id"])
    everything = logged_in("boss").get(f"{TRACKING}/runs/").json()["runs"]
    assert {"success", "failed"} == {run["tags.status"] for run in everything}


def test_experiments_are_named_by_feature(stored: None) -> None:
    told = logged_in("boss").get(f"{TRACKING}/experiments/").json()
    [found] = [one for one in told["experiments"] if one["key"] == "pfd"]
    assert ("pfd", True, True) == (found["name"], found["experiment_id"].isdigit(), told["enabled"])
    assert told["tracking_uri"].startswith("sqlite:///")


def test_questions_go_to_a_database_of_their_own_where_calls_go_to_a_server(
    stored: None, settings_of: dict[str, Any]
) -> None:
    settings_of |= {
        "TRACKING_URI": "http://someone:secret@mlflow:5000",
        "LEDGER_URI": settings_of["TRACKING_URI"],
    }
    told = logged_in("boss").get(f"{TRACKING}/experiments/").json()
    assert "http://someone@mlflow:5000" == told["tracking_uri"]
    assert "pfd" in {one["key"] for one in told["experiments"]}


@pytest.mark.parametrize("limit", ["0", "-1", "many", "1001", "9" * 50])
def test_a_limit_that_is_none_is_told_so(stored: None, limit: str) -> None:
    answer = logged_in("boss").get(f"{TRACKING}/runs/?limit={limit}")
    assert (400, True) == (answer.status_code, "limit" in answer.json()["detail"])


@pytest.mark.parametrize("page", ["experiments", "runs", "metrics"])
def test_only_those_whom_the_permission_lets_in_see_the_ledger(stored: None, page: str) -> None:
    for client, status in ((Client(), 403), (logged_in("ana"), 403), (logged_in("boss"), 200)):
        assert status == client.get(f"{TRACKING}/{page}/").status_code
    assert 405 == logged_in("boss").post(f"{TRACKING}/{page}/").status_code


def test_the_permission_may_be_ones_own(stored: None, settings_of: dict[str, Any]) -> None:
    settings_of["PERMISSION"] = lambda request: request.user.username == "ana"
    assert 200 == logged_in("ana").get(f"{TRACKING}/runs/").status_code
    assert 403 == logged_in("boss").get(f"{TRACKING}/runs/").status_code


def test_health_is_for_everybody_and_names_nothing(
    stored: None, settings_of: dict[str, Any]
) -> None:
    assert {"enabled": True, "status": "healthy"} == Client().get(f"{TRACKING}/health/").json()
    settings_of["TRACKING_URI"] = "postgresql://u:secret@127.0.0.1:1/none"
    answer = Client().get(f"{TRACKING}/health/")
    assert (503, False) == (answer.status_code, b"secret" in answer.content)


def test_the_command_line_asks_the_database_of_the_settings(stored: None) -> None:
    printed = io.StringIO()
    with redirect_stdout(printed):
        call_command("flowledger", "recent", "-n", "3")
    assert "gpt-4o" in printed.getvalue()
    with pytest.raises(CommandError, match="no-such"):
        call_command("flowledger", "no-such")
