"""Questions to the ledger: named, read-only SQL, answered in typed rows.

with Ledger("sqlite:///mlflow.db") as ledger:
    ledger.over(Window.last(days=7), Filters(feature="support")).sums().cost_usd
"""

from flowledger.questions.catalog import Block, catalog
from flowledger.questions.ledger import Ledger
from flowledger.questions.over import DIMENSIONS, Over
from flowledger.questions.rows import (
    Content,
    Experiment,
    FailedCall,
    FeatureOf,
    LedgerSize,
    Losses,
    Missing,
    Page,
    Percentiles,
    Period,
    PromptSlice,
    RecentCall,
    Run,
    Session,
    Slice,
    StoredCall,
    Sums,
)
from flowledger.questions.window import ALWAYS, Filters, Window

__all__ = [
    "ALWAYS",
    "DIMENSIONS",
    "Block",
    "Content",
    "Experiment",
    "FailedCall",
    "FeatureOf",
    "Filters",
    "Ledger",
    "LedgerSize",
    "Losses",
    "Missing",
    "Over",
    "Page",
    "Percentiles",
    "Period",
    "PromptSlice",
    "RecentCall",
    "Run",
    "Session",
    "Slice",
    "StoredCall",
    "Sums",
    "Window",
    "catalog",
]
