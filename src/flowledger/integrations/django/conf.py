"""`FLOWLEDGER` in Django's settings: a map whose names are below, or fields of our own settings.

FLOWLEDGER = {
    "TRACKING_URI": "postgresql://...",
    "TRACKED_MODELS": {"reports.Report": {"feature": "reports", "fields": ["status", "issues"]}},
}
"""

from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

from flowledger.config import Settings, load

__all__ = ["NAME", "callables", "get", "ledger_uri", "recording", "tracking_uri"]

NAME = "FLOWLEDGER"
DEFAULTS: dict[str, Any] = {
    "TRACKED_MODELS": {},
    "LEDGER_URI": "",
    "EXTRACTORS": (),
    "PERMISSION": "flowledger.integrations.django.permissions.is_staff",
}


def get(name: str) -> Any:
    """One of our settings of Django's, or its default."""
    return getattr(settings, NAME, {}).get(name, DEFAULTS[name])


def callables(name: str) -> list[Any]:
    """The functions that a setting names, by their dotted paths or as they are."""
    given = get(name)
    several = given if isinstance(given, list | tuple) else [given]
    return [import_string(one) if isinstance(one, str) else one for one in several]


def recording() -> dict[str, Any]:
    """What `flowledger.configure` is given: `TRACKING_URI`, `ENVIRONMENT`, ..., in lower case."""
    given = getattr(settings, NAME, {})
    return {name.lower(): value for name, value in given.items() if name not in DEFAULTS}


def tracking_uri() -> str:
    """Where calls go, and questions are asked.

    Raises:
        ConfigError: a setting cannot be used.
    """
    known = set(Settings.__struct_fields__)
    return load(**{k: v for k, v in recording().items() if k in known}).tracking_uri


def ledger_uri() -> str:
    """The database that questions are asked: `LEDGER_URI`, else where calls go.

    Raises:
        ConfigError: a setting cannot be used.
    """
    return str(get("LEDGER_URI") or tracking_uri())
