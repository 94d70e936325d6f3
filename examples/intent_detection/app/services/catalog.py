"""What can be wanted: categories and templates of the database, or those below when it has none."""

import logging
import os
import sqlite3
from contextlib import closing
from typing import NamedTuple

logger = logging.getLogger(__name__)


class Catalog(NamedTuple):
    """Categories, each with whether it needs a workflow; templates; and where both are from."""

    categories: dict[str, bool]
    workflows: list[str]
    agents: list[str]
    source: str


FALLBACK = Catalog(
    {"create_workflow": True, "run_workflow": True, "ask_agent": False, "question": False},
    ["invoice approval", "onboarding", "weekly report"],
    ["support agent", "data analyst"],
    "fallback",
)


def catalog() -> Catalog:
    """What the SQLite file that `INTENT_DATABASE` names has, else the fallback.

    Its tables are `intent_categories` (name, requires_workflow) and `templates` (kind, name).
    """
    path = os.environ.get("INTENT_DATABASE", "")
    if not os.path.isfile(path):
        return FALLBACK
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            asked = "SELECT name, requires_workflow FROM intent_categories ORDER BY name"
            categories = {str(name): bool(needs) for name, needs in database.execute(asked)}
            rows = database.execute("SELECT kind, name FROM templates ORDER BY name").fetchall()
    except sqlite3.Error as exc:
        logger.warning("categories come from the fallback: %s", exc)
        return FALLBACK
    named = {kind: [str(name) for k, name in rows if k == kind] for kind in ("workflow", "agent")}
    if not categories:
        return FALLBACK
    return Catalog(categories, named["workflow"], named["agent"], "database")
