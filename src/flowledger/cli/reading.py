"""Opening the ledger for a command, which must say so when it cannot."""

from typing import TYPE_CHECKING

from flowledger.errors import StoreMisconfigured

if TYPE_CHECKING:
    from flowledger.questions import Ledger

__all__ = ["open_ledger"]


def open_ledger(tracking_uri: str) -> "Ledger":
    """The ledger in that database.

    Raises:
        NotFound: nothing is stored there yet.
        StoreMisconfigured: it is no database, or the packages to read one are missing.
    """
    try:
        from flowledger.questions import Ledger
    except ImportError as exc:
        raise StoreMisconfigured(
            f"{exc.name} is not installed, and reading the ledger needs it: "
            "pip install 'flowledger[server]'"
        ) from exc
    return Ledger(tracking_uri)
