"""What a call costs: by hand, against the price list's own sum, and for values nobody should send.

Prices computed by hand name the list's prices in dollars per million tokens beside the numbers.
"""

import functools
import math
import subprocess
import sys
import timeit
from datetime import UTC, datetime, timedelta
from typing import Any

import genai_prices
import msgspec
import pytest
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import (
    ModelInfo,
    ModelPrice,
    Provider,
    StartDateConstraint,
    TimeOfDateConstraint,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flowledger.pricing import price
from flowledger.records import Call, Cost, Kind, Outcome, Usage

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FAILED = Outcome(success=False, error_type="TimeoutError")


def at(*moment: int) -> int:
    """A moment in UTC as Unix nanoseconds."""
    return ns(datetime(*moment, tzinfo=UTC))  # type: ignore[misc, arg-type]


def ns(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


def call(model: str | None = None, provider: str | None = None, **fields: Any) -> Call:
    """A chat call of June 2026, unless told otherwise; `usage` may be a plain dictionary."""
    usage = fields.pop("usage", {})
    defaults = {"id": "0" * 32, "kind": Kind.CHAT, "start_ns": at(2026, 6, 1, 12)}
    usage = Usage(**usage) if isinstance(usage, dict) else usage
    return Call(**{**defaults, "model": model, "provider": provider, "usage": usage, **fields})


def total(*args: Any, **fields: Any) -> float | None:
    """What such a call costs."""
    cost = price(call(*args, **fields))
    return None if cost is None else cost.total


def million(tokens: int = 1_000_000) -> dict[str, int]:
    """A usage of so many input tokens and no output."""
    return {"input_tokens": tokens, "output_tokens": 0}


# Computed by hand


def test_cached_input_has_a_price_of_its_own() -> None:
    """gpt-4o: 600 at 2.5, 400 cached at 1.25 and 500 out at 10 dollars a million."""
    usage = {"input_tokens": 1000, "cached_input_tokens": 400, "output_tokens": 500}
    expected = Cost(total=0.007, input=0.002, output=0.005)
    assert expected == price(call("gpt-4o", "openai", usage=usage))


def test_cache_reads_and_writes_are_parts_of_the_input() -> None:
    """claude-sonnet-4: 2000 at 3, 6000 read at 0.3, 2000 written at 3.75, 1000 out at 15."""
    usage = {
        "input_tokens": 10_000,
        "cached_input_tokens": 6000,
        "cache_write_tokens": 2000,
        "output_tokens": 1000,
    }
    expected = Cost(total=0.0303, input=0.0153, output=0.015)
    assert expected == price(call("claude-sonnet-4-20250514", "anthropic", usage=usage))


def test_audio_tokens_have_a_price_of_their_own() -> None:
    """gpt-audio: 200 at 2.5, 800 heard at 32, 50 at 10 and 450 said at 64."""
    usage = {
        "input_tokens": 1000,
        "input_audio_tokens": 800,
        "output_tokens": 500,
        "output_audio_tokens": 450,
    }
    expected = Cost(total=0.0554, input=0.0261, output=0.0293)
    assert expected == price(call("gpt-audio", "openai", usage=usage))


def test_reasoning_is_part_of_the_output() -> None:
    """o4-mini charges thoughts as output (4.4); sonar-deep-research has a price for them (3)."""
    usage = {"input_tokens": 0, "output_tokens": 2000, "reasoning_tokens": 1500}
    assert total("o4-mini", "openai", usage=usage) == 0.0088
    assert total("sonar-deep-research", "perplexity", usage=usage) == 0.0085


def test_a_fee_for_the_request_is_in_the_total_only() -> None:
    """sonar: 1000 at 1, 500 at 1, and 12 dollars for a thousand requests."""
    usage = {"input_tokens": 1000, "output_tokens": 500}
    expected = Cost(total=0.0135, input=0.001, output=0.0005)
    assert expected == price(call("sonar", "perplexity", usage=usage))


def test_an_embedding_costs_its_input() -> None:
    """text-embedding-3-small: a million at 0.02."""
    usage = {"input_tokens": 1_000_000}
    expected = Cost(total=0.02, input=0.02)
    assert expected == price(call("text-embedding-3-small", kind=Kind.EMBEDDING, usage=usage))


@pytest.mark.parametrize(("tokens", "expected"), [(128_000, 0.165), (128_001, 0.3300025)])
def test_crossing_a_tier_changes_the_price_of_every_token(tokens: int, expected: float) -> None:
    """gemini-1.5-pro: 1.25 and 5 up to 128,000 input tokens, 2.5 and 10 above."""
    usage = {"input_tokens": tokens, "output_tokens": 1000}
    assert expected == total("gemini-1.5-pro", "google", usage=usage)


@pytest.mark.parametrize(
    ("moment", "expected"),
    [(at(2025, 6, 9, 23, 59, 59), 10.0), (at(2025, 6, 10), 2.0), (at(2026, 1, 1), 2.0)],
)
def test_the_price_is_that_of_the_day(moment: int, expected: float) -> None:
    """o3 went from 10 to 2 dollars on 10 June 2025, UTC."""
    assert expected == total("o3", "openai", usage=million(), start_ns=moment)


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (at(2025, 3, 1, 0, 29, 59), 0.135),
        (at(2025, 3, 1, 0, 30), 0.27),
        (at(2025, 3, 1, 16, 29, 59), 0.27),
        (at(2025, 3, 1, 16, 30), 0.135),
    ],
)
def test_the_price_is_that_of_the_hour(moment: int, expected: float) -> None:
    """deepseek-chat was 0.135 off-peak, 16:30 to 00:30 UTC, and 0.27 else."""
    assert expected == total("deepseek-chat", "deepseek", usage=million(), start_ns=moment)


def test_the_service_tier_that_was_asked_for_is_priced_where_the_list_knows_it() -> None:
    """gpt-5 is 1.25, as flex 0.625 and as priority 2.5 since October 2026."""
    tiers = {"flex": 0.625, "priority": 2.5, "auto": 1.25, "default": 1.25, "nonsense": 1.25}
    since = at(2026, 10, 20)
    assert tiers == {
        tier: total(
            "gpt-5", "openai", usage=million(), start_ns=since, settings={"service_tier": tier}
        )
        for tier in tiers
    }


def test_a_service_tier_is_the_sellers_own() -> None:
    """Azure sells gpt-5 at OpenAI's price; what it takes for flex the list does not know."""
    flex = {"settings": {"service_tier": "flex"}, "start_ns": at(2026, 10, 20)}
    assert total("gpt-5", "azure", usage=million(), **flex) == 1.25


# The caller's own price


def test_the_callers_own_price_goes_before_the_list() -> None:
    """`cost_usd` is the total, without parts."""
    usage = million()
    assert Cost(total=0.5, source="given") == price(
        call("gpt-4o", "openai", usage=usage, cost_usd=0.5)
    )
    assert Cost(total=0.0, source="given") == price(
        call("gpt-4o", "openai", usage=usage, cost_usd=0.0)
    )


@pytest.mark.parametrize("amount", [-0.01, math.nan, math.inf, -math.inf, True, "1"])
def test_a_callers_price_that_is_no_amount_is_as_none_given(amount: Any) -> None:
    """The list's price holds then, and None where it has none."""
    assert total("gpt-4o", "openai", usage=million(), cost_usd=amount) == 2.5
    assert total("nobody-knows-this", "openai", usage=million(), cost_usd=amount) is None


# Unknown is None, never 0


@pytest.mark.parametrize(
    "odd",
    [
        call("a-model-nobody-lists", "openai", usage=million()),
        call("gpt-4o", "openai"),
        call(None, "openai", usage=million()),
        call("gpt-4o", "openai", usage={"reasoning_tokens": 5}),
        call("whisper-1", "openai", kind=Kind.SPEECH, usage=million()),
        call("tts-1", "openai", kind=Kind.SPEECH, usage=million()),
        call("gpt-4o", "openai", usage={"seconds": 60.0}),
        call("deepseek-r1", "ollama", usage=million()),
        call("gpt-oss:20b", "ollama", usage=million()),
        call("qwen-3-coder-480b", "cerebras", usage=million()),
        call("google/gemma-3-27b-it", None, usage=million()),
    ],
    ids=lambda odd: f"{odd.provider}-{odd.model}",
)
def test_what_has_no_known_price_is_none(odd: Call) -> None:
    """Unknown models, unknown usage, and usage that the model is not charged by."""
    assert price(odd) is None


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("omni-moderation-latest", "openai"),
        ("deepseek/deepseek-r1:free", "openrouter"),
        ("openrouter/deepseek/deepseek-r1:free", None),
        ("gemma-3-27b-it", "google"),
    ],
)
def test_what_the_list_knows_to_be_free_is_zero(model: str, provider: str | None) -> None:
    """The list says so in the model's id, its name or a comment."""
    assert Cost(total=0.0, input=0.0, output=0.0) == price(call(model, provider, usage=million()))


def test_a_failed_call_costs_what_it_used_and_else_nothing_is_known() -> None:
    """An interrupted stream is charged; a time-out with zeros is not known to be free."""
    assert total("gpt-4o", "openai", outcome=_FAILED) is None
    assert total("gpt-4o", "openai", outcome=_FAILED, usage=million(0)) is None
    assert total("gpt-4o", "openai", outcome=_FAILED, usage=million(1000)) == 0.0025
    assert total("whisper-1", "openai", outcome=_FAILED, usage={"seconds": 60.0}) == 0.006


def test_a_call_that_worked_with_no_tokens_costs_nothing() -> None:
    """Zero tokens are known tokens: an answer out of a cache."""
    assert total("gpt-4o", "openai", usage=million(0)) == 0.0


def test_a_side_that_was_not_counted_is_none_in_its_place() -> None:
    """What is known is in the total."""
    usage = {"output_tokens": 1000}
    assert Cost(total=0.01, output=0.01) == price(call("gpt-4o", "openai", usage=usage))


# Speech


def test_speech_is_charged_by_the_second() -> None:
    """whisper-1: 0.36 dollars an hour."""
    usage = {"seconds": 60.0}
    expected = Cost(total=0.006, input=0.006)
    assert expected == price(call("whisper-1", "openai", kind=Kind.SPEECH, usage=usage))


def test_a_least_length_is_charged_where_the_provider_has_one() -> None:
    """Groq charges 10 seconds at least: 0.111 dollars an hour for whisper-large-v3."""
    speech = call("whisper-large-v3", "groq", kind=Kind.SPEECH, usage={"seconds": 1.0})
    cost = price(speech)
    assert cost is not None
    assert cost.total == pytest.approx(0.111 / 360, abs=1e-12)


def test_cached_audio_is_unknown_while_the_counts_leave_it_open() -> None:
    """gpt-realtime: cached audio is 0.4, cached text 0.4, audio 32 and text 4."""
    whole = {"input_tokens": 1000, "output_tokens": 0, "cached_input_tokens": 500}
    some, all_of_it = {"input_audio_tokens": 500}, {"input_audio_tokens": 1000}
    assert total("gpt-realtime", "openai", usage={**whole, **some}) is None
    assert total("gpt-realtime", "openai", usage={**whole, **all_of_it}) == 0.0162


# Images


@pytest.mark.parametrize(
    ("model", "asked_for", "images", "expected"),
    [
        ("dall-e-2", {"size": "512x512"}, 2, 0.036),
        ("dall-e-2", {}, 1, 0.02),
        ("dall-e-3", {}, 1, 0.04),
        ("dall-e-3", {"size": "1024x1792", "quality": "standard"}, 1, 0.08),
        ("dall-e-3", {"size": "1792x1024", "quality": "hd"}, 3, 0.36),
        ("azure/dall-e-3", {"quality": "hd"}, 1, 0.08),
        ("gpt-image-1", {"size": "1024x1024", "quality": "high"}, 1, 0.167),
        ("gpt-image-1", {"size": "1536x1024", "quality": "medium"}, 2, 0.126),
        ("gpt-image-1-mini", {"size": "1024x1536", "quality": "low"}, 1, 0.006),
        ("gpt-image-1", {"size": "auto", "quality": "auto"}, 1, None),
        ("gpt-image-1", {}, 1, None),
        ("dall-e-3", {"size": "17x17"}, 1, None),
        ("dall-e-3", {"size": ["1024x1024"]}, 1, None),
        ("dall-e-3", {}, None, None),
        ("dall-e-3", {}, -1, None),
        ("dall-e-3", {}, 10**9, None),
        ("flux-pro", {}, 1, None),
    ],
)
def test_an_image_costs_by_model_size_and_quality(
    model: str, asked_for: dict[str, Any], images: int | None, expected: float | None
) -> None:
    """The table's price times the number of images, all of it output."""
    drawn = call(model, kind=Kind.IMAGE, settings=asked_for, usage={"images": images})
    cost = None if expected is None else Cost(total=expected, output=expected)
    assert cost == price(drawn)


def test_an_image_costs_by_its_tokens_where_they_are_known() -> None:
    """gpt-image-1: 50 at 5 and 4160 at 40; gemini-2.5-flash-image: 10 at 0.3 and 1290 at 30."""
    drawn: dict[str, Any] = {"kind": Kind.IMAGE, "settings": {"size": "auto"}}
    usage = {"input_tokens": 50, "output_tokens": 4160, "images": 1}
    assert total("gpt-image-1", "openai", usage=usage, **drawn) == 0.16665
    usage = {"input_tokens": 10, "output_tokens": 1290, "images": 1}
    assert total("gemini-2.5-flash-image", "google", usage=usage, **drawn) == 0.038703


def test_the_prompt_alone_is_not_the_price_of_an_image() -> None:
    """Without output tokens the table holds."""
    drawn = {"kind": Kind.IMAGE, "settings": {"size": "1024x1024", "quality": "low"}}
    usage = {"input_tokens": 50, "images": 1}
    assert total("gpt-image-1", "openai", usage=usage, **drawn) == 0.011


def test_an_image_that_failed_costs_nothing_known() -> None:
    """No image came."""
    drawn = {"kind": Kind.IMAGE, "outcome": _FAILED}
    assert total("dall-e-3", "openai", usage={"images": 0}, **drawn) is None


def test_speech_is_charged_by_the_character_where_the_list_does_so() -> None:
    """tts-1: 15 dollars a million characters, tts-1-hd: 30."""
    spoken = {"kind": Kind.SPEECH, "usage": {"characters": 1000}}
    expected = Cost(total=0.015, input=0.015)
    assert expected == price(call("tts-1", "openai", **spoken))
    assert total("tts-1-hd", "openai", **spoken) == 0.03
    assert total("whisper-1", "openai", **spoken) is None
    assert total("tts-1", "openai", kind=Kind.SPEECH, usage={"characters": -1}) is None


@pytest.mark.parametrize(
    ("model", "each"),
    [
        ("imagen-4.0-generate-001", 0.04),
        ("imagen-4.0-fast-generate-001", 0.02),
        ("publishers/google/models/imagen-4.0-ultra-generate-001", 0.06),
        ("imagen-3.0-generate-002", None),
    ],
)
def test_imagen_costs_by_the_image_whatever_its_size(model: str, each: float | None) -> None:
    for provider in ("google", "vertex_ai", None):
        drawn = {"kind": Kind.IMAGE, "usage": {"images": 3}, "settings": {"size": "2K"}}
        assert total(model, provider, **drawn) == (each and pytest.approx(3 * each))
    assert total(model, "openai", kind=Kind.IMAGE, usage={"images": 3}) is None


# Names


@pytest.mark.parametrize(
    ("provider", "model", "asked", "expected"),
    [
        (None, "gpt-4o", None, 2.5),
        (None, "openai/gpt-4o", None, 2.5),
        ("openai", "openai/gpt-4o", None, 2.5),
        (" OpenAI ", " GPT-4O ", None, 2.5),
        ("openai", "gpt-4o-2024-08-06", None, 2.5),
        ("openai", "gpt-4o-2024-05-13", None, 5.0),
        (None, "gpt-4o-20241120", None, 2.5),
        (None, "gpt-4o-2031-01-01", None, 2.5),
        (None, "ft:gpt-4o-mini-2024-07-18:org::id", None, 0.3),
        (None, "ft:gpt-4o-mini:org::id", None, 0.3),
        ("openai", "ft:gpt-4o-2031-01-01:org::id", None, 3.75),
        ("openai", "ft:gpt-4.1-2025-04-14:org::id", None, 3.0),
        ("openai", "ft:gpt-4.1-nano-2025-04-14:org::id", None, 0.2),
        ("openai", "ft:gpt-9:org::id", None, None),
        ("vertex_ai", "mistral-large@2411", None, 2.0),
        ("vertex_ai", "mistral-large@2411-001", None, 2.0),
        ("vertex_ai", "publishers/mistralai/models/mistral-medium-3@001", None, 0.4),
        ("azure", "gpt-4o", None, 2.5),
        ("azure_openai", "gpt-35-turbo", None, 0.5),
        ("azure", "our-deployment", "gpt-4o", 2.5),
        ("azure", "gpt-4o-2024-08-06", "our-deployment", 2.5),
        ("azure.ai.openai", "gpt-4o", None, 2.5),
        ("azure_openai", "phi-4", None, 0.125),
        ("bedrock", "us.anthropic.claude-3-5-sonnet-20240620-v1:0", None, 3.0),
        ("aws.bedrock", "eu.anthropic.claude-sonnet-4-5-20250929-v1:0", None, 3.3),
        (None, "us.anthropic.claude-3-5-sonnet-20240620-v1:0", None, 3.0),
        (None, "bedrock/anthropic.claude-3-5-sonnet-20240620-v1:0", None, 3.0),
        ("aws", "arn:aws:bedrock:eu-west-1:1:x/us.amazon.nova-pro-v1:0", None, 0.8),
        (None, "anthropic/claude-3.5-sonnet", None, 3.0),
        (None, "anthropic/claude-sonnet-4-20250514", None, 3.0),
        ("openai", "anthropic/claude-3.5-sonnet", None, 3.0),
        ("vertex_ai", "claude-3-5-sonnet@20240620", None, 3.0),
        ("gcp.gen_ai", "models/gemini-2.5-flash", None, 0.3),
        (None, "models/gemini-2.5-flash", None, 0.3),
        (None, "publishers/google/models/gemini-2.5-flash", None, 0.3),
        (None, "groq/llama-3.1-8b-instant", None, 0.05),
        (None, "llama-3.1-8b-instant", "groq/llama-3.1-8b-instant", 0.05),
        ("litellm", "groq/llama-3.1-8b-instant", None, 0.05),
        (None, "together_ai/meta-llama/Llama-3.3-70B-Instruct-Turbo", None, 0.88),
        (None, "perplexity/sonar", None, 1.012),
        ("xai", "grok-4", None, 3.0),
        (None, "text-embedding-3-large", None, 0.13),
        ("our-proxy", "gpt-4o", None, 2.5),
        ("our-proxy", "llama-3.1-8b-instant", None, None),
        ("our-proxy", "deepseek-chat", None, None),
        (None, "deepseek-r1", "ollama/deepseek-r1", None),
        (None, "deepseek-r1:7b", None, None),
        (None, "mistralai/Mistral-7B-Instruct-v0.1", None, None),
        (None, "meta-llama/Llama-3.3-70B-Instruct", None, None),
        ("groq", "gpt-4o", None, None),
        ("openai", "x" * 10_000, None, None),
    ],
)
def test_a_model_is_found_by_the_names_people_give_it(
    provider: str | None, model: str, asked: str | None, expected: float | None
) -> None:
    """Dollars for a million input tokens; None where the seller cannot be told."""
    assert expected == total(model, provider, model_asked=asked, usage=million())


# Against the list's own sum


def _listed() -> list[tuple[Provider, ModelInfo]]:
    """Every model of the list that answers to its own id and has a price by the token."""
    return [
        (provider, model)
        for provider in get_snapshot().providers
        for model in provider.models
        if provider.find_model(model.id) is model and _by_token(model)
    ]


def _prices(model: ModelInfo) -> list[ModelPrice]:
    one = isinstance(model.prices, ModelPrice)
    return [model.prices] if one else [dated.prices for dated in model.prices]  # type: ignore[list-item, union-attr]


def _by_token(model: ModelInfo) -> bool:
    return all("input_mtok" in vars(prices) for prices in _prices(model))


def _turns(model: ModelInfo) -> list[datetime]:
    """The moments around which the model's price may change."""
    dated = [] if isinstance(model.prices, ModelPrice) else model.prices
    constraints = [one.constraint for one in dated]
    constraints += [one.constraint for one in model.price_variants or []]
    found = []
    for one in constraints:
        if isinstance(one, StartDateConstraint):
            day = one.start_date
            found.append(datetime(day.year, day.month, day.day, tzinfo=UTC))
        if isinstance(one, TimeOfDateConstraint):
            ends = one.start_time, one.end_time
            found += [datetime(2026, 10, 20, at.hour, at.minute, tzinfo=UTC) for at in ends]
    return found


_LISTED = _listed()
# Drawn as often as all the others together: what has dates, hours, tiers or parts.
_RICH = [
    (provider, model)
    for provider, model in _LISTED
    if _turns(model)
    or any(len(vars(prices)) > 3 or "Tiered" in repr(prices) for prices in _prices(model))
]
_SOME = st.integers(0, 2_000_000) | st.sampled_from([0, 1, 32_000, 128_000, 200_000, 272_000])


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """A usage whose parts fit into their wholes."""
    asked, answered = draw(_SOME), draw(_SOME)
    cached = draw(st.integers(0, asked))
    written = draw(st.integers(0, asked - cached))
    reasoning = draw(st.integers(0, answered))
    return Usage(
        input_tokens=asked,
        output_tokens=answered,
        cached_input_tokens=draw(st.sampled_from([None, 0, cached])),
        cache_write_tokens=(kept := draw(st.sampled_from([None, 0, written]))),
        cache_write_1h_tokens=None if kept is None else draw(st.integers(0, kept)),
        input_audio_tokens=draw(st.sampled_from([None, 0, asked - cached - written])),
        reasoning_tokens=draw(st.sampled_from([None, 0, reasoning])),
        output_audio_tokens=draw(st.sampled_from([None, 0, answered - reasoning])),
    )


@st.composite
def moments(draw: st.DrawFn, model: ModelInfo) -> datetime:
    """Any moment from 2023 to 2027, often one at which the model's price changes."""
    turns = _turns(model)
    if len(turns) > 0 and draw(st.booleans()):
        step = timedelta(microseconds=draw(st.integers(-1, 1)))
        return draw(st.sampled_from(turns)) + step
    return draw(st.datetimes(datetime(2023, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC)))


def by_the_list(
    provider: Provider, model: ModelInfo, usage: Usage, moment: datetime, context: dict[str, str]
) -> Cost | None:
    """What the package itself computes, or None where it will not."""
    cached, heard = usage.cached_input_tokens or 0, usage.input_audio_tokens or 0
    both = cached + heard - (usage.input_tokens or 0)
    try:
        found = genai_prices.calc_price(
            genai_prices.Usage(
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                cache_read_tokens=usage.cached_input_tokens,
                cache_write_tokens=usage.cache_write_tokens,
                cache_write_1h_tokens=usage.cache_write_1h_tokens,
                input_audio_tokens=usage.input_audio_tokens,
                # Told only where it follows from the rest; else the package refuses, as we do.
                cache_audio_read_tokens=both if 0 < both == min(cached, heard) else None,
                output_reasoning_tokens=usage.reasoning_tokens,
                output_audio_tokens=usage.output_audio_tokens,
            ),
            model.id,
            provider_id=provider.id,
            genai_request_timestamp=moment,
            price_context=context,
        )
    except ValueError:
        return None
    return Cost(
        total=float(found.total_price),
        input=float(found.input_price),
        output=float(found.output_price),
    )


@settings(max_examples=2000, deadline=None)
@given(data=st.data(), usage=usages())
def test_the_cost_is_the_one_the_list_computes(data: st.DataObject, usage: Usage) -> None:
    """Equal to 1e-12 over models, dates, hours, tiers, parts and service tiers."""
    provider, model = data.draw(st.sampled_from(_RICH) | st.sampled_from(_LISTED))
    moment = data.draw(moments(model))
    tier = data.draw(st.sampled_from([None, "auto", "default", "flex", "priority", "fast"]))
    context = {} if tier is None else {"service_tier": tier}
    asked = call(model.id, provider.id, usage=usage, start_ns=ns(moment), settings=context)
    expected, actual = by_the_list(provider, model, usage, moment, context), price(asked)
    if expected is None or actual is None:
        assert expected is actual is None
        return
    assert abs(expected.total - actual.total) <= 1e-12
    assert actual.input is not None
    assert abs((expected.input or 0.0) - actual.input) <= 1e-12
    assert abs((expected.output or 0.0) - (actual.output or 0.0)) <= 1e-12


def test_every_model_of_the_list_has_the_lists_price() -> None:
    """The same for each model once, at one usage that reaches the tiers."""
    usage = Usage(input_tokens=300_000, cached_input_tokens=100_000, output_tokens=2000)
    moment = datetime(2026, 10, 20, 12, tzinfo=UTC)
    expected = {
        (provider.id, model.id): by_the_list(provider, model, usage, moment, {})
        for provider, model in _LISTED
    }
    asked = {"usage": usage, "start_ns": ns(moment)}
    actual = {
        (provider.id, model.id): price(call(model.id, provider.id, **asked))
        for provider, model in _LISTED
    }
    different = [key for key in expected if not _alike(expected[key], actual[key])]
    assert different == []
    assert len(_LISTED) > 1000


def _alike(one: Cost | None, other: Cost | None) -> bool:
    return one is not None and other is not None and abs(one.total - other.total) <= 1e-12


# Batches, caches kept for an hour, and pictures among the input


def test_a_batch_costs_what_the_list_says_and_half_where_it_says_nothing() -> None:
    """Of 1M + 1M tokens in 2026; nothing is known of batches of other sellers."""
    batch = {"start_ns": at(2026, 10, 20), "settings": {"processing": "batch"}}
    plain = {"start_ns": at(2026, 10, 20)}
    halves = {
        "gpt-4o": "openai",
        "claude-sonnet-4-0": "anthropic",
        "gpt-4": "azure",
        "us.anthropic.claude-3-5-sonnet-20240620-v1:0": "aws",
    }
    for name, seller in halves.items():
        whole = total(name, seller, usage=million(), **plain)
        assert whole is not None
        assert total(name, seller, usage=million(), **batch) == pytest.approx(whole / 2)
    assert total("deepseek-chat", "deepseek", usage=million(), **batch) is None


def test_an_hour_in_the_cache_costs_more_than_minutes() -> None:
    """3 dollars a million read, 3.75 kept for minutes, 6 for an hour."""
    usage = {"input_tokens": 1_000_000, "cache_write_tokens": 600_000}
    hour = {**usage, "cache_write_1h_tokens": 400_000}
    asked: Any = {"start_ns": at(2026, 10, 20)}
    price_of = functools.partial(total, "claude-sonnet-4-0", "anthropic", **asked)
    assert price_of(usage=usage) == pytest.approx(0.4 * 3 + 0.6 * 3.75)
    assert price_of(usage=hour) == pytest.approx(0.4 * 3 + 0.2 * 3.75 + 0.4 * 6)
    assert price_of(usage={**hour, "cache_write_1h_tokens": 700_000}) is None


def test_pictures_among_the_input_have_their_own_price() -> None:
    """gpt-image-1: 5 dollars a million for text, 10 for pictures, 40 for what it draws."""
    usage = {"input_tokens": 500_000, "input_image_tokens": 200_000, "output_tokens": 100_000}
    asked: Any = {"start_ns": at(2026, 10, 20), "kind": "image"}
    price_of = functools.partial(total, "gpt-image-1", "openai", **asked)
    assert price_of(usage=usage) == pytest.approx(0.3 * 5 + 0.2 * 10 + 0.1 * 40)
    assert price_of(usage={**usage, "cached_input_tokens": 1}) is None


# Values nobody should send


@pytest.mark.parametrize(
    "usage",
    [
        {"input_tokens": -1},
        {"input_tokens": 10**15 + 1},
        {"input_tokens": 10**400},
        {"input_tokens": 1, "output_tokens": -5},
        {"input_tokens": 10, "cached_input_tokens": 11},
        {"input_tokens": 10, "cached_input_tokens": 6, "cache_write_tokens": 5},
        {"input_tokens": 10, "input_audio_tokens": 11},
        {"output_tokens": 10, "cached_input_tokens": 1},
        {"output_tokens": 10, "reasoning_tokens": 11},
        {"output_tokens": 10, "reasoning_tokens": 6, "output_audio_tokens": 5},
        {"input_tokens": 1.5},
        {"input_tokens": True},
        {"input_tokens": "12"},
    ],
    ids=str,
)
def test_counts_that_cannot_be_true_have_no_price(usage: dict[str, Any]) -> None:
    """Negative, beyond 1e15, no integers, or parts greater than their whole."""
    assert total("gpt-4o", "openai", usage=usage) is None


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf, 1e30, "60"])
def test_lengths_that_cannot_be_true_have_no_price(seconds: Any) -> None:
    """Negative, endless, or no number."""
    assert total("whisper-1", "openai", usage={"seconds": seconds}) is None


@pytest.mark.parametrize("moment", [-1, 2**63, 10**30, math.nan, None, "2026"])
def test_a_moment_that_cannot_be_true_has_no_price(moment: Any) -> None:
    """The day decides the price; warm or cold, the answer is the same."""
    for model in ("gpt-4o", "o3"):
        assert total(model, "openai", usage=million(), start_ns=moment) is None


def test_the_greatest_usage_has_a_price() -> None:
    """1e15 tokens at 2.5 dollars a million."""
    assert total("gpt-4o", "openai", usage=million(10**15)) == 2.5e9


_ODD = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | st.text(max_size=40)
    | st.sampled_from(["gpt-4o", "openai", "azure", "claude-3-opus", "dall-e-3", "whisper-1", "/"])
    | st.lists(st.integers(), max_size=2)
    | st.dictionaries(st.text(max_size=5), st.integers(), max_size=2)
)


_FIELDS = ("model", "model_asked", "provider", "kind", "start_ns", "cost_usd")


@settings(max_examples=1000, deadline=None)
@given(
    fields=st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(_FIELDS, _ODD),
    ),
    asked_for=st.dictionaries(st.sampled_from(["size", "quality", "service_tier"]), _ODD) | _ODD,
    counts=st.dictionaries(st.sampled_from(Usage.__struct_fields__), _ODD),
)
@example(fields={"model": "gpt-5", "provider": "openai"}, asked_for=5, counts={"input_tokens": 1})
def test_nothing_that_is_sent_raises(
    fields: dict[str, Any], asked_for: Any, counts: dict[str, Any]
) -> None:
    """An odd value anywhere gives None or an amount that is finite and not negative."""
    odd = call(usage=Usage(**counts), settings=asked_for, **{"model": "gpt-4o", **fields})
    cost = price(odd)
    assert cost is None or 0 <= cost.total < math.inf


def test_a_call_keeps_its_price_through_the_journal() -> None:
    """Encoding changes no number."""
    usage = Usage(input_tokens=12_345, cached_input_tokens=1024, output_tokens=678)
    sent = call("gpt-4o", "openai", usage=usage)
    arrived = msgspec.msgpack.decode(msgspec.msgpack.encode(sent), type=Call)
    assert price(sent) == price(arrived) is not None


# What it takes


def test_a_price_takes_microseconds() -> None:
    """It runs for every stored call; about 5 us, and far from that is a mistake."""
    usage = {"input_tokens": 1200, "cached_input_tokens": 1024, "output_tokens": 300}
    asked = call("gpt-4o", "openai", usage=usage, settings={"temperature": 0.2})
    best = min(timeit.repeat(lambda: price(asked), number=1000, repeat=20)) / 1000
    assert best < 30e-6


def test_a_million_names_are_not_remembered() -> None:
    """Names come from outside: what is kept of them is bounded, here and in the package."""
    kept = len(get_snapshot()._lookup_cache) + len(get_snapshot()._provider_misses)
    for number in range(100):
        total(f"made-up-{number}", f"nobody-{number}", usage=million())
    assert kept == len(get_snapshot()._lookup_cache) + len(get_snapshot()._provider_misses)


def test_pricing_does_not_load_mlflow() -> None:
    """The store imports it in a process that must start fast."""
    code = "import sys, flowledger.pricing; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
