"""What calls lack is counted over all of them, and nothing else is said to be missing."""

import pytest

from flowledger.errors import QuestionError
from flowledger.questions import Filters, Ledger, Missing
from flowledger.records import Actor, Call, Outcome, Usage
from tests.calls import a_call
from tests.test_questions import store

ANY = Filters()
WHO = Actor(user_id="ana", session_id="s-1", audit_reason="support")


def missing(uri: str, *calls: Call, filters: Filters = ANY) -> list[tuple[str, int]]:
    store(uri, *calls)
    with Ledger(uri) as ledger:
        return [(one.what, one.calls) for one in ledger.over(filters=filters).missing()]


def test_nothing_is_missing_of_a_call_that_says_everything(database_uri: str) -> None:
    failed = a_call(outcome=Outcome(success=False, error_type="Timeout"), usage=Usage())
    assert [] == missing(database_uri, a_call(), failed)


def test_each_thing_is_counted_where_it_is_missing(database_uri: str) -> None:
    calls = [
        a_call(actor=Actor(session_id="s-1", audit_reason="")),
        a_call(actor=Actor(user_id="ana")),
        a_call(actor=WHO, model=None, model_asked=None, usage=Usage(), prompt=None, response=None),
        a_call(actor=WHO, model="house/none", model_asked=None),
        a_call(actor=WHO, outcome=Outcome(success=False)),
    ]
    expected = [
        ("user_id", 1),
        ("session_id", 1),
        ("audit_reason", 2),
        ("model", 1),
        ("total_tokens", 1),
        ("cost_usd", 1),
        ("error_type", 1),
    ]
    assert expected == missing(database_uri, *calls)


def test_a_call_that_groups_others_and_a_function_owe_no_model(database_uri: str) -> None:
    group = a_call(model=None, model_asked=None, usage=Usage(), inner_calls=2)
    function = a_call(kind="custom", model=None, model_asked=None, usage=Usage())
    assert [] == missing(database_uri, group, function)


def test_the_latest_that_lack_it_are_named_and_all_are_counted(database_uri: str) -> None:
    calls = [a_call(actor=Actor(), start_ns=n * 10**9 + 10**18) for n in range(30)]
    store(database_uri, *calls)
    with Ledger(database_uri) as ledger:
        found = ledger.over().missing(examples=2)
    latest = [calls[29].id, calls[28].id]
    whats = ("user_id", "session_id", "audit_reason")
    assert [Missing(what=what, calls=30, latest=latest) for what in whats] == found


def test_filters_say_which_calls_are_looked_at(database_uri: str) -> None:
    calls = [a_call(actor=Actor(), feature="a"), a_call(actor=Actor(user_id="ana"), feature="b")]
    expected = [("session_id", 1), ("audit_reason", 1)]
    assert expected == missing(database_uri, *calls, filters=Filters(feature="b"))


def test_examples_are_bounded(sqlite_uri: str) -> None:
    store(sqlite_uri, a_call(actor=Actor()))
    with Ledger(sqlite_uri) as ledger, pytest.raises(QuestionError, match="limit=0: give 1 to"):
        ledger.over().missing(examples=0)
