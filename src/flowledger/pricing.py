"""What a call cost in US dollars, by its date, from a price list that needs no network.

    price -> its own cost -> _by_list -> _resolve -> _Tariff.at -> _Formula.cost
                          `-> _by_image

The list is the `genai-prices` package. It finds the model and says which of its prices holds at a
moment; both answers are kept, and the sum is done here in integers, because asking the package for
every call costs 70 microseconds. A test compares the two over the whole list.

A price that is not known is None, never 0. So is the price of a usage that contradicts itself: a
wrong number in a ledger is worse than a missing one, which is listed.
"""

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

from genai_prices import Usage as ListUsage
from genai_prices.data_snapshot import find_provider_by_id, get_snapshot
from genai_prices.types import (
    ClauseEquals,
    ModelInfo,
    ModelPrice,
    Provider,
    StartDateConstraint,
    TieredPrices,
    TimeOfDateConstraint,
)

from flowledger.records import Call, Cost, Kind, Usage

__all__ = ["price"]

_MOST_TOKENS = 10**15
_MOST_SECONDS = 10**9
_MOST_IMAGES = 10**6
_LONGEST_NAMES = 600  # three together; what is remembered must stay small
_SCALE = 18  # decimal places of a price per million tokens that are kept: all the list has
_PER_DOLLAR = 10 ** (_SCALE + 6)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = 10**9
_DAY = 86_400 * _SECOND
_LAST_NS = 2**63  # the year 2262
_BATCH = "batch"
# "50% cost discount compared to synchronous APIs", as their guides to batches say of all models.
# Bedrock: "at a 50% lower price compared to on-demand", aws.amazon.com/bedrock/pricing.
_HALVE_BATCHES = frozenset({"anthropic", "aws", "azure", "openai"})

# Everything an odd value in a Call can set off. A bug of ours in some other way still shows.
_ODD = (TypeError, ValueError, ArithmeticError, AttributeError, LookupError, RecursionError)


def price(call: Call) -> Cost | None:
    """What the call cost in US dollars, or None when that is not known.

    `call.cost_usd` goes before the list, unless it is no amount (negative, NaN, infinite). Then
    the model that answered is looked up, or the one that was asked for where the list does not
    know that name, at the provider the call names; without one, the prefix (`azure/gpt-4o`) or the
    name itself says whose it is. Prices are those of `call.start_ns`. A `service_tier` (or
    `processing`, `speed`, `search_type`) among the settings is honoured where the list prices it.

    A call of a batch (`processing` is `batch`) without a price of its own costs half at OpenAI,
    Azure, Anthropic and Bedrock.

    Tokens: a part without a price of its own (cached, cache write, audio, image, reasoning) costs
    what the whole costs. A side that was not counted adds nothing to the total and is None in its
    place. Where cached audio, or input that is images, has a price of its own and the counts leave
    open how much of the cached input was of that sort, the cost is None.

    Images: by tokens where they are known, else by number, size and quality. Speech by the second
    needs `usage.seconds`, speech by the character `usage.characters`.

    Never raises: an odd value gives None.
    """
    try:
        if call.cost_usd is not None and _is_amount(call.cost_usd):
            return Cost(total=float(call.cost_usd), source="given")
        return _by_list(call) or _by_image(call)
    except _ODD:
        return None


def _is_amount(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf  # type: ignore[operator]


def _by_list(call: Call) -> Cost | None:
    """The cost by tokens, seconds or characters, from the price list."""
    usage = call.usage
    counts = _counts(usage)
    used = any(counts or ()) or usage.seconds or usage.characters
    if counts is None or not (call.outcome.success or used):
        return None
    names = (call.provider, call.model, call.model_asked)
    tariff = _resolve(*names) if sum(map(len, filter(None, names))) <= _LONGEST_NAMES else None
    if tariff is None:
        return None
    formula = tariff.at(call.start_ns, call.settings)
    if formula.character and usage.characters is not None:
        cost = formula.spoken(usage.characters)
        return _in_batch(call, cost, tariff.provider.id)
    if formula.by_the_hour and call.usage.seconds is not None:
        return tariff.timed(call)
    if call.kind == Kind.IMAGE and call.usage.output_tokens is None:
        return None  # the prompt alone is not what an image costs
    draws = call.kind == Kind.IMAGE or bool(call.usage.images)
    cost = formula.cost(call.usage, counts, draws=draws)
    if call.settings.get("processing") == _BATCH:
        alone = {key: value for key, value in call.settings.items() if key != "processing"}
        # The list may have no price for batches, or none yet at that date.
        if formula.rates == tariff.at(call.start_ns, alone).rates:
            return _in_batch(call, cost, tariff.provider.id)
    return cost


def _in_batch(call: Call, cost: Cost | None, seller: str) -> Cost | None:
    """A cost by prices that hold outside batches, as it is in one where the call was in one."""
    if cost is None or call.settings.get("processing") != _BATCH:
        return cost
    if seller not in _HALVE_BATCHES:
        return None
    parts = (cost.input, cost.output)
    halves = [None if part is None else part / 2 for part in parts]
    return Cost(total=cost.total / 2, input=halves[0], output=halves[1])


# Counting


class _Counts(NamedTuple):
    """A usage with 0 for what is not known; the parts fit into their wholes."""

    input: int
    cached: int
    written: int
    audio: int
    hour: int
    seen: int
    output: int
    reasoning: int
    spoken: int


def _counts(usage: Usage) -> _Counts | None:
    """The tokens of a usage, or None when none are known or they cannot be true."""
    known = (usage.input_tokens, usage.output_tokens, usage.seconds, usage.characters)
    if all(number is None for number in known):
        return None
    counts = _Counts(
        usage.input_tokens or 0,
        usage.cached_input_tokens or 0,
        usage.cache_write_tokens or 0,
        usage.input_audio_tokens or 0,
        usage.cache_write_1h_tokens or 0,
        usage.input_image_tokens or 0,
        usage.output_tokens or 0,
        usage.reasoning_tokens or 0,
        usage.output_audio_tokens or 0,
    )
    for count in counts:
        if type(count) is not int or not 0 <= count <= _MOST_TOKENS:
            return None
    if counts.cached + counts.written > counts.input or counts.hour > counts.written:
        return None
    if counts.audio + counts.seen > counts.input:
        return None
    return counts if counts.reasoning + counts.spoken <= counts.output else None


# Formulas


class _Rates(NamedTuple):
    """What one token of each sort costs, in 10**-24 dollars."""

    text: int
    cached: int
    written: int
    audio: int
    cached_audio: int
    hour: int
    seen: int
    output: int
    reasoning: int
    spoken: int
    drawn: int

    def inward(self, counts: _Counts) -> int | None:
        """The input's cost, or None when it depends on how much of the cached part was no text."""
        _, cached, written, audio, hour, seen, *_ = counts
        if seen and self.seen != self.text and (cached or written):
            return None
        least, most = max(0, cached + audio + written - counts.input), min(cached, audio)
        matters = self.cached_audio + self.text != self.cached + self.audio
        if least > most or (least < most and matters):
            return None
        return (
            self.text * (counts.input - cached - written - audio - seen + least)
            + self.seen * seen
            + self.cached * (cached - least)
            + self.written * (written - hour)
            + self.hour * hour
            + self.audio * (audio - least)
            + self.cached_audio * least
        )

    def outward(self, counts: _Counts, *, draws: bool) -> int:
        """The output's cost; where the call draws, what is neither thought nor said is image."""
        rest = counts.output - counts.reasoning - counts.spoken
        return (
            (self.drawn if draws else self.output) * rest
            + self.reasoning * counts.reasoning
            + self.spoken * counts.spoken
        )


class _Formula:
    """How one model's tokens are charged at one moment, for one kind of request."""

    def __init__(self, prices: ModelPrice, info: ModelInfo) -> None:
        known = {key: value for key, value in vars(prices).items() if value is not None}
        self.free = not known and _says_free(info)
        self.by_the_hour = any(key.endswith("_hours") for key in known)
        self.character = _scaled(known.get("input_mchars", Decimal(0)))
        self.input = "input_mtok" in known
        self.output = "output_mtok" in known
        self.request = _scaled(known.get("requests_kcount", Decimal(0))) * 1000
        self.starts = _tier_starts(known.values())
        self.rates = [_rates(known, start) for start in (-1, *self.starts)]

    def spoken(self, characters: int) -> Cost | None:
        """What a text of so many characters costs to be spoken."""
        if type(characters) is not int or not 0 <= characters <= _MOST_TOKENS:
            return None
        total = self.character * characters / _PER_DOLLAR
        return Cost(total=total, input=total)

    def cost(self, usage: Usage, counts: _Counts, *, draws: bool) -> Cost | None:
        """What these tokens cost, or None when none of them has a price."""
        asked = self.input and usage.input_tokens is not None
        answered = self.output and usage.output_tokens is not None
        if self.free and (usage.input_tokens, usage.output_tokens) != (None, None):
            return Cost(total=0.0, input=0.0, output=0.0)
        if not (asked or answered):
            return None
        rates = self.rates[bisect_left(self.starts, counts.input)]
        inward = rates.inward(counts)
        if inward is None:
            return None
        outward = rates.outward(counts, draws=draws)
        return Cost(
            total=(inward + outward + self.request) / _PER_DOLLAR,
            input=inward / _PER_DOLLAR if asked else None,
            output=outward / _PER_DOLLAR if answered else None,
        )


def _says_free(info: ModelInfo) -> bool:
    """Whether the list says in words that a model without prices is free.

    Some models have no prices because nobody entered any; only words tell these two apart.
    """
    words = f"{info.id} {info.name} {info.description} {info.price_comments}".lower()
    return re.search(r"\bfree\b|zero token cost", words) is not None


def _tier_starts(prices: Any) -> list[int]:
    """The numbers of input tokens above which some price changes."""
    tiered = (value for value in prices if isinstance(value, TieredPrices))
    return sorted({tier.start for value in tiered for tier in value.tiers})


def _rates(known: dict[str, Any], start: int) -> _Rates:
    """The rates of a call with more than `start` input tokens, up to the next tier."""

    def rate(*keys: str) -> int:
        return next((_scaled(known[key], start) for key in keys if key in known), 0)

    return _Rates(
        text=rate("input_mtok"),
        cached=rate("cache_read_mtok", "input_mtok"),
        written=rate("cache_write_mtok", "input_mtok"),
        audio=rate("input_audio_mtok", "input_mtok"),
        cached_audio=rate(
            "cache_audio_read_mtok", "cache_read_mtok", "input_audio_mtok", "input_mtok"
        ),
        hour=rate("cache_write_1h_mtok", "cache_write_mtok", "input_mtok"),
        seen=rate("input_image_mtok", "input_mtok"),
        output=rate("output_mtok"),
        reasoning=rate("output_reasoning_mtok", "output_mtok"),
        spoken=rate("output_audio_mtok", "output_mtok"),
        drawn=rate("output_image_mtok", "output_mtok"),
    )


def _scaled(price: Decimal | TieredPrices, start: int = -1) -> int:
    """A price as an integer; crossing a tier changes the price of all tokens, not of the rest."""
    if isinstance(price, TieredPrices):
        reached = [tier.price for tier in price.tiers if tier.start <= start]
        price = reached[-1] if reached else price.base
    return int(price.scaleb(_SCALE))


# Tariffs


class _Tariff:
    """One model at one provider: which formula holds when, and for which kind of request.

    Prices change at midnights and at times of day, both UTC. Between two changes the package gives
    one answer, so that is asked for once and kept. There are as many as changes times kinds.
    """

    def __init__(self, provider: Provider, info: ModelInfo) -> None:
        # The package applies no variants to a model it borrows from another provider.
        own = any(info is one for one in provider.models)
        variants = (info.price_variants or []) if own else []
        dated = info.prices if isinstance(info.prices, list) else []
        constraints = [one.constraint for one in dated] + [one.constraint for one in variants]
        self.provider = provider
        self.info = info
        self.kinds: dict[str, set[str]] = {}
        for key, value in (pair for variant in variants for pair in variant.when.items()):
            self.kinds.setdefault(key, set()).add(value)
        self.days = _days(constraints)
        self.times = _times(constraints)
        self._formulas: dict[tuple[object, ...], _Formula] = {}

    def at(self, start_ns: int, settings: dict[str, Any]) -> _Formula:
        """The formula for a request made at this moment with these settings."""
        context = self._context(settings) if self.kinds and settings else ()
        key = (context, self._period(start_ns))
        formula = self._formulas.get(key)
        if formula is None:
            prices = self.info.get_prices(_moment(start_ns), dict(context))
            formula = self._formulas[key] = _Formula(prices, self.info)
        return formula

    def _context(self, settings: dict[str, Any]) -> tuple[tuple[str, str], ...]:
        return tuple(
            (key, settings[key])
            for key, values in self.kinds.items()
            if isinstance(settings.get(key), str) and settings[key] in values
        )

    def _period(self, start_ns: int) -> tuple[int, int]:
        if not 0 <= start_ns < _LAST_NS:
            raise ValueError(f"no time of a call: {start_ns}")
        return bisect_right(self.days, start_ns), bisect_right(self.times, start_ns % _DAY)

    def timed(self, call: Call) -> Cost | None:
        """What a call charged by the second cost, by the package's own sum.

        It knows of least lengths, and a call that takes a second is worth another 70 microseconds.
        """
        usage = call.usage
        if not _is_amount(usage.seconds) or usage.seconds > _MOST_SECONDS:  # type: ignore[operator]
            return None
        found = self.info.calc_price(
            _as_listed(usage),
            self.provider,
            genai_request_timestamp=_moment(call.start_ns),
            price_context=dict(self._context(call.settings)),
        )
        sided = found.input_price + found.output_price == found.total_price
        return Cost(
            total=float(found.total_price),
            input=float(found.input_price) if sided else None,
            output=float(found.output_price) if sided and usage.output_tokens is not None else None,
        )


def _as_listed(usage: Usage) -> ListUsage:
    """A usage in the package's words, which counts as OpenAI does: a whole includes its parts."""
    return ListUsage(
        input_tokens=usage.input_tokens,
        cache_read_tokens=usage.cached_input_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
        input_image_tokens=usage.input_image_tokens,
        input_audio_tokens=usage.input_audio_tokens,
        output_tokens=usage.output_tokens,
        output_reasoning_tokens=usage.reasoning_tokens,
        output_audio_tokens=usage.output_audio_tokens,
        audio_seconds=usage.seconds,
        input_audio_seconds=usage.seconds,
    )


def _moment(start_ns: int) -> datetime:
    return _EPOCH + timedelta(microseconds=start_ns // 1000)


def _days(constraints: Sequence[object]) -> list[int]:
    """The moments, in Unix nanoseconds, from which another price may hold."""
    starts = {one.start_date for one in constraints if isinstance(one, StartDateConstraint)}
    return sorted(_ns_of(day) for day in starts)


def _ns_of(day: date) -> int:
    return (day - _EPOCH.date()).days * _DAY


def _times(constraints: Sequence[object]) -> list[int]:
    """The nanoseconds of the day at which another price may begin to hold."""
    daily = [one for one in constraints if isinstance(one, TimeOfDateConstraint)]
    return sorted({_ns_of_day(at) for one in daily for at in (one.start_time, one.end_time)})


def _ns_of_day(at: time) -> int:
    since = datetime.combine(_EPOCH, at, tzinfo=at.tzinfo or UTC) - _EPOCH
    return since // timedelta(microseconds=1) * 1000 % _DAY


# Finding the model

# Names the package does not know, or takes for somebody else's. `aws.bedrock`, `vertex_ai`,
# `google_genai` and the like it recognises by itself.
_ALIASES = {
    "fireworks_ai": "fireworks",
    "fireworks-ai": "fireworks",
    "gcp.gen_ai": "google",
    "grok": "x-ai",
    "perplexityai": "perplexity",
    "togetherai": "together",
    "x_ai": "x-ai",
    "z-ai": "zai",
    "z.ai": "zai",
}
# These pass a call on at its price; the model's name says to whom.
_GATEWAYS = frozenset(
    {"", "any-llm", "any_llm", "custom", "dspy", "instructor", "langchain", "litellm", "unknown"}
)
# These alone sell their models, so the model's name is enough. A `deepseek-r1` may run anywhere.
_SOLE_SELLERS = frozenset({"anthropic", "cohere", "google", "openai", "perplexity", "x-ai"})
# OpenAI's names that the package finds only when told the provider.
_OPENAI_NAMES = ("text-embedding-3", "text-embedding-ada", "chatgpt-", "ft:", "omni-moderation")
# Makers' names on Hugging Face that read like providers: the model may run anywhere.
_ORGANISATIONS = frozenset({"arcee-ai", "cohereforai", "coherelabs", "mistralai", "moonshotai"})
# Names only one provider gives.
_BEDROCK = r"([a-z]+(-[a-z]+)?\.)?(amazon|anthropic|cohere|deepseek|meta|mistral)\.[a-z]"
_TELLING = (
    (re.compile(_BEDROCK), "aws"),
    (re.compile(r"accounts/fireworks/"), "fireworks"),
    (re.compile(r"@cf/"), "cloudflare"),
)
_SNAPSHOT = re.compile(r"[-@]20\d\d-?[01]\d-?[0-3]\d$")


@lru_cache(maxsize=4096)
def _resolve(provider: str | None, model: str | None, asked: str | None) -> _Tariff | None:
    """The tariff of the model that answered, else of the one asked for, else None.

    The package's own look-up keeps every name it was ever asked for; this one forgets.
    """
    named = _clean(provider)
    named = None if named in _GATEWAYS else named
    # A gateway's answer drops the prefix of the question: `groq/llama-3` is answered by `llama-3`.
    prefix = None if named else _prefix(_clean(asked)) or _prefix(_clean(model))
    for name in (_clean(model), _clean(asked)):
        found = _find(named, prefix, name) if name else None
        if found is not None:
            return found
    return None


def _clean(name: str | None) -> str | None:
    return None if name is None else name.strip().lower()


def _prefix(name: str | None) -> str | None:
    head, slash, _ = (name or "").partition("/")
    return head if slash else None


def _find(named: str | None, prefix: str | None, name: str) -> _Tariff | None:
    for seller in _sellers(named, prefix, name):
        for form in _forms(name if named else name.removeprefix(f"{prefix}/")):
            info = seller.find_model(form, all_providers=_providers()) or _UNLISTED.get(
                (seller.id, form)
            )
            if info is None:
                continue
            if seller is _provider(named) or _is_sure(seller, info, form, prefix):
                return _Tariff(seller, info)
    return None


def _sellers(named: str | None, prefix: str | None, name: str) -> Iterator[Provider]:
    """Who may have sold this model, the likeliest first."""
    known = _provider(named or _teller(name) or (None if prefix in _ORGANISATIONS else prefix))
    if known is not None:
        yield known
    # A known seller's list is the last word, but `openai` is also what people call the client of
    # any compatible server.
    if known is None or known.id == "openai":
        alone = named is None and prefix is None and ":" not in name  # `name:7b` runs at home
        maker = _maker(name.rpartition("/")[2])
        if maker is not None and (alone or maker.id in _SOLE_SELLERS):
            yield maker


def _teller(name: str) -> str | None:
    return next((provider for form, provider in _TELLING if form.match(name)), None)


def _maker(name: str) -> Provider | None:
    """Whose model this is, by its name alone."""
    for provider in _providers():
        if provider.model_match is not None and provider.model_match.is_match(name):
            return provider
    return _provider("openai") if name.startswith(_OPENAI_NAMES) else None


def _is_sure(seller: Provider, info: ModelInfo, form: str, prefix: str | None) -> bool:
    """Whether a model found without its provider's name is what was meant.

    A prefix may be a maker's name on Hugging Face, and what is free at `google` is not free
    everywhere; `gpt-oss` is OpenAI's to download, not to call.
    """
    unpriced = isinstance(info.prices, ModelPrice) and not vars(info.prices)
    if unpriced and prefix is not None and not form.endswith(":free"):
        return False
    return seller.id != "openai" or not form.startswith("gpt-oss")


def _forms(name: str) -> Iterator[str]:
    """The name as given, without its prefixes, then without a snapshot's date or Vertex's `@`."""
    parts = name.split("/")[:6]
    tails = ["/".join(parts[at:]) for at in range(len(parts))]
    yield from tails
    for tail in tails:
        undated = _SNAPSHOT.sub("", tail)
        if undated != tail:
            yield undated
        if "@" in tail:
            yield tail.replace("@", "-").removesuffix("-001")
        if tail.startswith("ft:"):
            base = _SNAPSHOT.sub("", tail.split(":")[1])
            yield from (f"ft:{base}", f"ft:{base}-2024-")  # the list has those of 2024


def _unlisted(model: str, asked: str, cached: str | None, answered: str) -> ModelInfo:
    """A model that the list lacks, by its prices in dollars per million tokens."""
    prices = {"input_mtok": asked, "cache_read_mtok": cached, "output_mtok": answered}
    known = {key: Decimal(price) for key, price in prices.items() if price is not None}
    return ModelInfo(id=model, match=ClauseEquals(model), prices=ModelPrice(**known))


# By the seller and the name that `_forms` makes. Sources: openai.com/api/pricing, "Fine-tuning";
# cloud.google.com/vertex-ai/generative-ai/pricing, "Mistral AI's models".
_UNLISTED = {
    ("openai", "ft:gpt-4.1"): _unlisted("ft:gpt-4.1", "3", "0.75", "12"),
    ("openai", "ft:gpt-4.1-mini"): _unlisted("ft:gpt-4.1-mini", "0.8", "0.2", "3.2"),
    ("openai", "ft:gpt-4.1-nano"): _unlisted("ft:gpt-4.1-nano", "0.2", "0.05", "0.8"),
    ("google", "mistral-large-2407"): _unlisted("mistral-large-2407", "2", None, "6"),
    ("google", "mistral-large-2411"): _unlisted("mistral-large-2411", "2", None, "6"),
    ("google", "mistral-medium-3"): _unlisted("mistral-medium-3", "0.4", None, "2"),
}


def _provider(name: str | None) -> Provider | None:
    """The provider of that name or alias; `azure_openai` is Azure, not OpenAI."""
    if not name:
        return None
    known = "azure" if "azure" in name else _ALIASES.get(name, name)
    return find_provider_by_id(_providers(), known)


def _providers() -> list[Provider]:
    return get_snapshot().providers


# Images


class _Listed(NamedTuple):
    """What one image of a quality costs, in dollars by size ("" is any), from a day on."""

    model: str
    quality: str
    since: date
    sizes: dict[str, str]


def _dall_e(square: str, oblong: str) -> dict[str, str]:
    return {"1024x1024": square, "1024x1792": oblong, "1792x1024": oblong}


def _gpt_image(square: str, oblong: str) -> dict[str, str]:
    return {"1024x1024": square, "1024x1536": oblong, "1536x1024": oblong}


# The price list has no prices by the image. A new price is a new row below the old one. Sources:
# dall-e-2: OpenAI's announcement of the API, 3 November 2022; dall-e-3: openai.com/pricing as read
# on 25 December 2023; gpt-image-1 and -mini: developers.openai.com/api/docs/models/gpt-image-1 and
# .../gpt-image-1-mini as read in October 2026 (the output alone: the prompt's tokens come on top);
# imagen-4.0: ai.google.dev/gemini-api/docs/pricing, generally available since 14 August 2025.
# Imagen 3 is not here: Vertex AI and the Gemini API charge differently for it.
_DALL_E_2 = {"256x256": "0.016", "512x512": "0.018", "1024x1024": "0.020"}
_IMAGES = (
    _Listed("dall-e-2", "standard", date(2022, 11, 3), _DALL_E_2),
    _Listed("dall-e-3", "standard", date(2023, 11, 6), _dall_e("0.040", "0.080")),
    _Listed("dall-e-3", "hd", date(2023, 11, 6), _dall_e("0.080", "0.120")),
    _Listed("gpt-image-1", "low", date(2025, 4, 23), _gpt_image("0.011", "0.016")),
    _Listed("gpt-image-1", "medium", date(2025, 4, 23), _gpt_image("0.042", "0.063")),
    _Listed("gpt-image-1", "high", date(2025, 4, 23), _gpt_image("0.167", "0.25")),
    _Listed("gpt-image-1-mini", "low", date(2025, 10, 6), _gpt_image("0.005", "0.006")),
    _Listed("gpt-image-1-mini", "medium", date(2025, 10, 6), _gpt_image("0.011", "0.015")),
    _Listed("gpt-image-1-mini", "high", date(2025, 10, 6), _gpt_image("0.036", "0.052")),
    _Listed("imagen-4.0-fast-generate-001", "", date(2025, 8, 14), {"": "0.02"}),
    _Listed("imagen-4.0-generate-001", "", date(2025, 8, 14), {"": "0.04"}),
    _Listed("imagen-4.0-ultra-generate-001", "", date(2025, 8, 14), {"": "0.06"}),
)


def _by_image(call: Call) -> Cost | None:
    """The cost by number, size and quality, for the models that are charged so."""
    count = call.usage.images
    if type(count) is not int or not 0 <= count <= _MOST_IMAGES:
        return None
    if not (call.outcome.success or count):
        return None
    for name in (call.model, call.model_asked):
        model = _SNAPSHOT.sub("", (_clean(name) or "").rpartition("/")[2])
        sellers = ("google",) if model.startswith("imagen-") else ("openai", "azure")
        each = _each(model, call) if _is_sold_by(call.provider, sellers) else None
        if each is not None:
            total = float(each * count)
            return _in_batch(call, Cost(total=total, output=total), sellers[0])
    return None


def _each(model: str, call: Call) -> Decimal | None:
    """What one image cost on the day of the call; the first price holds before its day, too."""
    size, quality = ("1024x1024", "standard") if model.startswith("dall-e") else ("auto", "auto")
    size = call.settings.get("size") or size
    quality = call.settings.get("quality") or quality
    if model.startswith("imagen-"):
        size = quality = ""  # one price for all
    rows = [row for row in _IMAGES if (row.model, row.quality) == (model, quality)]
    begun = [row for row in rows if _ns_of(row.since) <= call.start_ns] or rows[:1]
    return Decimal(begun[-1].sizes[size]) if begun and size in begun[-1].sizes else None


def _is_sold_by(provider: str | None, sellers: tuple[str, ...]) -> bool:
    known = _provider(_clean(provider))
    return known is None or known.id in sellers
