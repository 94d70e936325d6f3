"""Questions to the ledger: named, read-only SQL, answered in typed rows.

with Ledger("sqlite:///mlflow.db") as ledger:
    ledger.over(Window.last(days=7), Filters(feature="support")).sums().cost_usd
"""

from flowledger.questions.catalog import Block, catalog
from flowledger.questions.groups import Groups
from flowledger.questions.ledger import Ledger
from flowledger.questions.over import DIMENSIONS, ORDERS, Over
from flowledger.questions.rows import (
    Content,
    Experiment,
    FailedCall,
    FeatureOf,
    Lag,
    LedgerSize,
    Losses,
    Page,
    Percentiles,
    Period,
    PeriodSlice,
    PromptSlice,
    RecentCall,
    Run,
    Session,
    Slice,
    Step,
    StoredCall,
    Sums,
)
from flowledger.questions.searching import Searched
from flowledger.questions.speeds import Speeds
from flowledger.questions.window import ALWAYS, Filters, Window

__all__ = [
    "ALWAYS",
    "DIMENSIONS",
    "ORDERS",
    "Block",
    "Content",
    "Experiment",
    "FailedCall",
    "FeatureOf",
    "Filters",
    "Groups",
    "Lag",
    "Ledger",
    "LedgerSize",
    "Losses",
    "Over",
    "Page",
    "Percentiles",
    "Period",
    "PeriodSlice",
    "PromptSlice",
    "RecentCall",
    "Run",
    "Searched",
    "Session",
    "Slice",
    "Speeds",
    "Step",
    "StoredCall",
    "Sums",
    "Window",
    "catalog",
]
