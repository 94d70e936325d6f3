"""The dashboard: pages over the questions, for whatever app asks the ledger.

app.include_router(router(asker))
"""

from flowledger.dashboard.routes import PLACE, router

__all__ = ["PLACE", "router"]
