"""What stands beside the database on this host: chat turns, journals, and what was rejected."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from flowledger.config import Settings
from flowledger.shipping.collector import Collector, collector_lock

if TYPE_CHECKING:
    from flowledger.chat.library import Library

__all__ = ["forget_turns", "ship"]

SHIP_SECONDS = 60.0


def ship(settings: Settings) -> None:
    """Have what waits stored first, so that it is taken out with the rest."""
    folder = settings.journal_folder
    with collector_lock(folder) as ours:
        if ours():
            Collector(folder, settings.destination, settings.token).run_once(timeout=SHIP_SECONDS)


def forget_turns(settings: Settings, forget: Callable[["Library"], int]) -> int:
    """Delete conversations from the chat store, where there is one; how many turns there were."""
    store = settings.chat_store or f"sqlite:///{Path(settings.home, 'chat.db')}"
    if store.startswith("sqlite") and not Path(store.partition(":///")[2]).is_file():
        return 0
    from flowledger.chat import library

    kept = library.opened()
    turns = forget(kept)
    kept.overwrite_freed()
    kept.close()
    return turns
