"""What was asked as it was when it was given, whatever the application changes while it waits."""

from collections.abc import Mapping
from typing import Any

from flowledger.capture import recorder
from flowledger.capture.content import freeze

__all__ = ["freeze_fields"]


def freeze_fields(fields: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """Return fields of a record as they are now; nothing where recording is off.

    Never raises for what a value is or does.

    Args:
        fields: values by name.
        notes: gets a note on each value that is not kept as it is.
    """
    active = recorder.active()
    if active is None:
        return {}
    limit = active.settings.max_content_bytes
    return {name: freeze(name, value, limit, notes) for name, value in fields.items()}
