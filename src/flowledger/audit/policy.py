"""The policy: what evidence must hold, as `evidence:` in `flowledger.yaml` says it."""

import re
from typing import Any

import msgspec

from flowledger.config import Settings
from flowledger.errors import ConfigError

__all__ = ["ALLOWABLE", "FIELDS", "Policy", "policy_of", "seconds_of"]

# What a call may be required to carry, as the column of `llm_calls` that holds it.
FIELDS = {
    "user_id": "user_id",
    "session_id": "session_id",
    "persona_id": "persona_id",
    "user_role": "user_role",
    "audit_reason": "audit_reason",
    "environment": "environment",
    "feature": "feature",
    "model": "model",
    "provider": "provider",
    "prompt_version": "prompt_version",
    "tokens": "total_tokens",
    "cost": "cost_usd",
}
ALLOWABLE = (
    "missing_fields",
    "missing_records",
    "dropped_records",
    "rejected_records",
    "silent_sources",
    "calls_without_run",
    "runs_without_call",
    "unknown_prices",
    "estimated_tokens",
    "stale",
)
ALLOWED = ("runs_without_call", "silent_sources", "unknown_prices", "estimated_tokens")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_duration = re.compile(r"(\d{1,6})([smhd])")


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What evidence must hold.

    require: fields that every call carries, unless its feature or environment says otherwise.
    by_feature, by_environment: the fields instead; an environment's win over a feature's.
    fresh_within: how old the newest call may be, such as `24h`; empty asks for nothing.
    grace: how long records may be on their way.
    silent_after: when a program that sent calls counts as fallen silent.
    allow: what is listed and does not fail, out of `ALLOWABLE`.
    """

    require: list[str] = msgspec.field(default_factory=lambda: ["user_id", "audit_reason"])
    by_feature: dict[str, list[str]] = {}
    by_environment: dict[str, list[str]] = {}
    fresh_within: str = ""
    grace: str = "10m"
    silent_after: str = "24h"
    allow: list[str] = msgspec.field(default_factory=lambda: [*ALLOWED])

    @property
    def required(self) -> list[str]:
        """Every field that some call must carry."""
        named = [*self.require, *(f for some in self._special() for f in some)]
        return [field for field in FIELDS if field in named]

    def _special(self) -> list[list[str]]:
        return [*self.by_feature.values(), *self.by_environment.values()]


def policy_of(settings: Settings) -> Policy:
    """The policy that the settings hold.

    Raises:
        ConfigError: a name in it is wrong; the message says which there are.
    """
    try:
        policy = msgspec.convert(settings.evidence, Policy)
    except msgspec.ValidationError as exc:
        names = ", ".join(Policy.__struct_fields__)
        raise ConfigError(f"evidence in flowledger.yaml: {exc}; there are {names}") from exc
    fields = (*policy.require, *(f for some in policy._special() for f in some))
    _check("a field", fields, FIELDS)
    _check("allow", policy.allow, ALLOWABLE)
    for name in ("fresh_within", "grace", "silent_after"):
        text = getattr(policy, name)
        if text or name != "fresh_within":
            seconds_of(text, f"evidence.{name}")
    return policy


def seconds_of(text: str, what: str) -> int:
    """The seconds of a duration such as `90s`, `10m`, `24h` or `180d`.

    Raises:
        ConfigError: it is none.
    """
    found = _duration.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"{what}={text!r}: use a number with s, m, h or d, such as 24h or 180d")
    return int(found[1]) * UNITS[found[2]]


def _check(what: str, names: Any, there: Any) -> None:
    for name in names:
        if name not in there:
            raise ConfigError(f"evidence: {what} cannot be {name!r}; use one of {', '.join(there)}")
