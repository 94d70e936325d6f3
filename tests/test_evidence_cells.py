"""The digest of a row: no two rows share one, and both databases make the text that Python does."""

from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flowledger.audit.proof import open_proven, verify
from flowledger.audit.texts import texts_between
from flowledger.store.chain import rows_of
from flowledger.store.leaves import SEPARATOR, digest_of_record, text_digest
from flowledger.store.rows import LEDGER
from tests.test_evidence_proof import execute, named, rich_call, store
from tests.test_evidence_restating import add_up_anew

ODD = ("", "\x1e", "\x1f", "=", "==", "\x1f=", "=\x1f", "NULL", "0", "1", "1.5", "é")
TEXTS = st.none() | st.sampled_from(ODD) | st.text("=\x1e\x1f0a\\'", max_size=4)
NUMBERS = st.none() | st.integers(-(2**60), 2**60) | st.sampled_from([0, 1])
FLOATS = st.none() | st.sampled_from([0.0, 1.0, 1.5, 0.1 + 0.2, 1e20, 1.23456789e-7])
CELLS = st.fixed_dictionaries(
    {
        "session_id": TEXTS,
        "audit_reason": TEXTS,
        "error_message": TEXTS,
        "input_tokens": NUMBERS,
        "cost_usd": FLOATS,
        "success": st.booleans(),
    }
)
EMPTY: dict[str, Any] = {
    **dict.fromkeys(("session_id", "audit_reason", "error_message", "input_tokens", "cost_usd")),
    "success": True,
}


def text_of(cells: dict[str, Any]) -> str:
    return "".join(one for one in cells.values() if isinstance(one, str))


def test_no_two_rows_share_a_digest_and_databases_agree_with_python(database_uri: str) -> None:
    call = rich_call()
    store(database_uri, [call])
    with open_proven(database_uri) as (writer, cursor):

        def digests(cells: dict[str, Any]) -> tuple[bytes, bytes]:
            changed = ", ".join(f"{name} = {writer.mark}" for name in cells)
            cursor.execute(f"UPDATE llm_calls SET {changed}", list(cells.values()))
            [row] = rows_of(writer, cursor, LEDGER, [call.id])
            [(_, text)] = texts_between(writer, cursor, LEDGER, call.id, call.id)
            return digest_of_record(LEDGER, [row])[1], text_digest(text)

        @settings(max_examples=100, suppress_health_check=list(HealthCheck))
        @given(one=CELLS, other=CELLS)
        @example(one=EMPTY, other={**EMPTY, "session_id": "\x1e"})
        @example(one=EMPTY, other={**EMPTY, "session_id": ""})
        def judge(one: dict[str, Any], other: dict[str, Any]) -> None:
            (python, database), (other_python, other_database) = digests(one), digests(other)
            assert (one == other) == (python == other_python)
            assert one == other or python != other_database
            if SEPARATOR not in text_of(one):  # else rows are read one by one
                assert python == database

        judge()


def test_a_value_put_in_the_place_of_none_is_found(database_uri: str) -> None:
    calls = [rich_call() for _ in range(3)]
    store(database_uri, calls)
    statement = "UPDATE llm_calls SET {0} = :value WHERE id = :id AND {0} IS NULL"
    columns = ("error_message", "environment", "prompt_hash")
    for call, column, value in zip(calls, columns, ("\x1e", "", "="), strict=True):
        assert 1 == execute(database_uri, statement.format(column), id=call.id, value=value)
    add_up_anew(database_uri)
    expected = {("changed", "llm_calls", call.id) for call in calls}
    assert expected == named(verify(database_uri))
