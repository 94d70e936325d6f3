"""Questions to the ledger: named, read-only SQL over `llm_calls`, answered in typed rows.

with Ledger("sqlite:///mlflow.db") as ledger:
    ledger.totals().cost_usd
"""

from flowledger.questions.catalog import Block, catalog
from flowledger.questions.ledger import Ledger
from flowledger.questions.rows import (
    Content,
    ErrorCount,
    FeatureNumbers,
    LedgerSize,
    Losses,
    RecentCall,
    StoredCall,
    Totals,
)

__all__ = [
    "Block",
    "Content",
    "ErrorCount",
    "FeatureNumbers",
    "Ledger",
    "LedgerSize",
    "Losses",
    "RecentCall",
    "StoredCall",
    "Totals",
    "catalog",
]
