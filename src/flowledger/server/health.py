"""Whether this worker lives, and whether the database behind it answers."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

import flowledger
from flowledger import logs
from flowledger.errors import StoreError, StoreOutdated
from flowledger.server.parts import Parts
from flowledger.server.problems import documented, first_line, unavailable

__all__ = ["PUBLIC_PATHS", "router"]

PREFIX = "/api/flowledger/v1"
PUBLIC_PATHS = frozenset((f"{PREFIX}/health", f"{PREFIX}/ready"))


class Alive(BaseModel):
    """This is a flowledger server."""

    flowledger: str = Field(description="Its version.", examples=["0.1.0"])


class Ready(Alive):
    """This is a flowledger server, and its database has just answered."""

    schema_version: int = Field(description="Version of our tables in the database.", examples=[2])


def router(parts: Parts) -> APIRouter:
    """Liveness and readiness; nobody needs to log in for them."""
    routes = APIRouter(prefix=PREFIX, tags=["health"])
    health = _Health(parts)
    routes.add_api_route("/health", health.alive, operation_id="health")
    routes.add_api_route(
        "/ready",
        health.ready,
        operation_id="ready",
        responses=documented(_429="Asked too often at once.", _503="The database does not answer."),
    )
    return routes


class _Health:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def alive(self) -> Alive:
        """Say that this is a flowledger server; asks nothing and nobody."""
        return Alive(flowledger=flowledger.__version__)

    async def ready(self) -> Ready:
        """Say whether calls can be stored: asks the database each time."""
        version = await self._parts.ask(self._version)
        return Ready(flowledger=flowledger.__version__, schema_version=version)

    def _version(self) -> int:
        try:
            return self._parts.database.version()
        except StoreOutdated as exc:
            raise unavailable(f"not ready: {exc}") from exc
        except StoreError as exc:
            # Anybody may ask, so names of hosts and databases stay in the log.
            logs.warn("server", "not ready: %s", first_line(exc))
            raise unavailable("not ready: the database does not answer") from exc
