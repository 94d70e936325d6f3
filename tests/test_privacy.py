"""What may be kept of a text: secrets are found wherever they stand, ordinary text stays."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import flowledger
from flowledger.capture.recorder import Recorder, use
from flowledger.config import Settings, load
from flowledger.errors import ConfigError
from flowledger.privacy import REDACTORS, privacy_of
from flowledger.records import Call, Job, Outcome, Record, Span, ToolCall, decode, encode
from flowledger.store.entries import entry
from flowledger.store.rows import Experiment, make_rows
from tests.calls import a_call

SECRETS = {
    "keys": [
        "sk-proj-abcdefghijklmnopqrstuvwx0123456789",
        "sk-ant-api03-abcdefghijklmnopqrstuvwx",
        "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        "AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefghijklmnop",
    ],
    "email": ["ana@example.org", "j.o'neil+tag@mail.example.co.uk"],
    "phone": ["+49 171 2345678", "+1 (415) 555-2671", "0044 20 7946 0958", "(415) 555-2671"],
    "card": ["4111 1111 1111 1111", "5500005555555559", "3782-822463-10005"],
    "iban": ["DE89370400440532013000", "GB82 WEST 1234 5698 7654 32"],
}
ORDINARY = [
    "2026-11-21 07:37:08",
    "2026-11-21T07:37:08.123456+00:00",
    "1763710628123",
    "019ab3c4d5e67f8091a2b3c4d5e6f708",
    "550e8400-e29b-41d4-a716-446655440000",
    "1234567890123456",  # fails Luhn
    "DE00370400440532013000",  # fails its check digits
    "order 4111-22",
    "192.168.100.200:8080",
    "3.14159265358979",
    "-122.41941550000000",
    "v1.2.3-rc.4",
    "a@b",
    "risk-averse and task-force",
    "12,345,678.90 EUR",
    "tr-019ab3c4d5e67f8091a2b3c4d5e6f708",
]
around = st.text(st.characters(codec="utf-8", exclude_characters="+"), max_size=30).map(
    lambda text: f"{text} " if text else ""
)
every = [(name, secret) for name, secrets in SECRETS.items() for secret in secrets]


def all_of(text: str) -> str:
    for redactor in REDACTORS.values():
        text = redactor(text)
    return text


@given(st.sampled_from(every), around, around)
def test_a_secret_is_found_wherever_it_stands(
    secret: tuple[str, str], before: str, after: str
) -> None:
    name, text = secret
    assert text not in REDACTORS[name](f"{before}{text}{after[::-1]}")


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert f"It says {text} there." == all_of(f"It says {text} there.")


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Nd", "No", "Nl")), max_size=200))
def test_text_without_digits_and_at_signs_stays_as_it_is(text: str) -> None:
    plain = text.replace("@", "").replace("PRIVATE KEY", "").replace("-", "")
    assert plain == all_of(plain)


@given(st.integers(0, 10**12), st.floats(0, 1e9, allow_nan=False))
def test_numbers_stay_as_they_are(whole: int, number: float) -> None:
    assert f"{whole} and {number!r}" == all_of(f"{whole} and {number!r}")


def everywhere(secret: str) -> list[Record]:
    """Records with the secret in each place that a text can be in."""
    call = a_call(
        prompt=[{"role": "user", "content": f"my {secret} please"}],
        response={"deep": [{"er": secret}]},
        tool_calls=[ToolCall(name="f", arguments=secret, result=f"got {secret}")],
        outcome=Outcome(success=False, error_type="E", message=secret, stack=f"at {secret}"),
        settings={"stop": [secret]},
        params={"p": secret},
        tags={"t": secret},
        metrics={secret: 1.0},
    )
    span = Span(id=call.id, producer="1" * 32, seq=2, inputs=secret, outputs=[secret])
    job = Job(id=call.id, producer="1" * 32, seq=3, name=secret, params={"p": secret})
    return [call, span, job]


def kept(record: Record, **settings: Any) -> bytes:
    return privacy_of(Settings(**settings)).apply(record, encode(record))


@pytest.mark.parametrize(("name", "secret"), every)
def test_a_secret_is_gone_from_every_part_of_a_record(name: str, secret: str) -> None:
    for record in everywhere(secret):
        assert secret.encode() not in kept(record, redact=name)


@pytest.mark.parametrize("mode", ["hashed", "none"])
def test_content_that_is_not_kept_is_in_no_row(mode: str) -> None:
    secret = "the patient is called Ana Smith"
    call = everywhere(secret)[0]
    assert isinstance(call, Call)
    bare = decode(kept(msgspec.structs.replace(call, metrics={}), capture_content=mode))
    assert isinstance(bare, Call)
    made = entry(bare)
    rows = make_rows([made], {made.experiment: Experiment(1, "/x")}, "run+trace").by_table
    text = repr(rows) + repr(make_rows([made], {made.experiment: Experiment(1, "/x")}, "ledger"))
    assert "Ana Smith" not in text
    assert ("sha256" in repr(bare.prompt)) == (mode == "hashed")


def test_hashed_content_keeps_its_hash_and_length() -> None:
    found = decode(kept(a_call(prompt="Hello", response=None), capture_content="hashed"))
    assert isinstance(found, Call)
    digest = "185f8db32271fe25f561a6fc938b2e264306ec304eda518007d1764826381969"
    assert f"[sha256 {digest}, 5 characters]" == found.prompt


def test_tokens_of_hashed_content_are_not_made_up() -> None:
    call = a_call()
    bare = msgspec.structs.replace(call, usage=type(call.usage)())
    found = decode(kept(bare, capture_content="hashed"))
    assert isinstance(found, Call)
    assert entry(found).call.usage.total_tokens is None


def test_a_feature_may_keep_less_than_the_others() -> None:
    modes = {"capture_content_of": {"support": "none"}}
    private, open_ = a_call(feature="support"), a_call(feature="search")
    assert b"Where is my order" not in kept(private, **modes)
    assert b"Where is my order" in kept(open_, **modes)


def fails(text: str) -> str:
    raise ValueError(text)


def odd(text: str) -> Any:
    return None


@pytest.mark.parametrize("redactor", [fails, odd])
def test_a_redactor_that_fails_withholds_the_text(redactor: Any) -> None:
    call = a_call()
    payload = privacy_of(Settings(redact=""), [redactor]).apply(call, encode(call))
    assert b"Where is my order" not in payload
    assert b"[withheld: a redactor failed]" in payload


def shout(text: str) -> str:
    return text.replace("order", "ORDER")


def test_a_function_of_ones_own_is_named_in_the_settings() -> None:
    assert b"Where is my ORDER" in kept(a_call(), redact=f"keys,{__name__}:shout")


@pytest.mark.parametrize("name", ["nobody", "no.such.module:f", "os:name"])
def test_a_redactor_that_is_not_there_is_told(name: str) -> None:
    with pytest.raises(ConfigError, match="redact"):
        privacy_of(Settings(redact=name))


def test_a_wrong_mode_is_told_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="use one of full, hashed, none"):
        load({}, capture_content="some")


def test_a_number_that_was_cut_in_half_goes_with_the_cut() -> None:
    call = a_call(prompt="card 4111 1111 11 [cut: 900 bytes in all, sha256 ab]")
    assert b"4111" not in kept(call, redact="card")


def test_a_recorded_call_is_private_before_it_is_kept() -> None:
    found: list[bytes] = []
    recorder = Recorder(
        Settings(redact="email"), "1" * 32, lambda seq, data: found.append(data), [shout]
    )
    before = use(recorder)
    try:
        flowledger.track(lambda text: text)("order for ana@example.org")
    finally:
        use(before)
    [call] = [decode(data) for data in found]
    assert isinstance(call, Call)
    assert "ORDER for [email]" == call.response


def test_a_call_without_a_secret_is_kept_as_it_was_encoded() -> None:
    call = a_call()
    payload = encode(call)
    assert payload is privacy_of(Settings()).apply(call, payload)
    assert payload is privacy_of(Settings(redact="keys")).apply(call, payload)
