"""The analytics API: routers for the flowledger server, or for any FastAPI app.

app.include_router(analytics_router("sqlite:///mlflow.db"))
"""

from fastapi import APIRouter

from flowledger import config
from flowledger.server.analytics import evidence, exploring, overviews, passing, tracking
from flowledger.server.analytics.asking import Asker, LocalAsker

__all__ = ["ROUTERS", "analytics_router"]

# Each makes a router with a prefix of its own.
ROUTERS = (overviews.router, tracking.router, exploring.router, evidence.router)


def analytics_router(tracking_uri: str | None = None) -> APIRouter:
    """Every route of the analytics API, for `app.include_router`.

    Tables that are missing are made when it is first asked, so an empty database answers zeros.
    Whoever reaches the app may ask: put the app's own authentication in front.

    Args:
        tracking_uri: the `sqlite:///` or `postgresql://` database that calls are stored in, or the
            flowledger server that calls go to, which then answers; the environment's, as
            everywhere in flowledger, when left out.

    Raises:
        ConfigError: the environment's settings cannot be used.
    """
    settings = config.load(tracking_uri=tracking_uri)
    if settings.tracking_uri.startswith(("http://", "https://")):
        return passing.router(settings.tracking_uri)
    asker: Asker = LocalAsker(settings)
    together = APIRouter()
    for make in ROUTERS:
        together.include_router(make(asker))
    return together
