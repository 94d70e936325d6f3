"""The server's app: our routes in front of MLflow's own app, which is left as it is."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import msgspec
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from mlflow.server.constants import ARTIFACT_ROOT_ENV_VAR, BACKEND_STORE_URI_ENV_VAR
from mlflow.server.fastapi_app import create_fastapi_app
from mlflow.server.fastapi_security import init_fastapi_security
from mlflow.server.handlers import STATIC_PREFIX_ENV_VAR
from mlflow.tracing.utils.otlp import OTLP_TRACES_PATH
from starlette.types import ASGIApp, Receive, Scope, Send

import flowledger
from flowledger import config, dashboard
from flowledger.config import Settings
from flowledger.server import analytics, docs, health, ingest, scraping, settings
from flowledger.server.analytics.asking import ServerAsker
from flowledger.server.callers import MlflowUsers, open_users
from flowledger.server.counting import OURS, Counted
from flowledger.server.guard import Guard
from flowledger.server.key_holders import SpansByKey
from flowledger.server.linked import Linked
from flowledger.server.log_ins import LogIns
from flowledger.server.metrics import Metrics
from flowledger.server.metrics_folder import MetricsFolder
from flowledger.server.otlp import Otlp
from flowledger.server.parts import Parts, make_parts
from flowledger.server.problems import COMMON, add_problem_handlers

__all__ = ["ROUTERS", "create"]

# Every part of the API: a function that makes a router from a worker's parts. Its routes stand
# behind the guard, answer errors as `Problem` and are in /api/docs. A router has a prefix of its
# own, which no path of MLflow's begins with, or paths without parameters.
ROUTERS: tuple[Callable[[Parts], APIRouter], ...] = (
    health.router,
    ingest.router,
    scraping.router,
)


def create(folder: MetricsFolder) -> ASGIApp:
    """The app that one server worker runs; MLflow's command left its settings in the environment.

    Args:
        folder: where the workers of this server keep their numbers.

    Raises:
        ConfigError: a setting cannot be used.
    """
    ours_alone = settings.load()
    common = _settings()
    metrics = Metrics(ours_alone.label_values)
    users = open_users(ours_alone.auth)
    parts = make_parts(common, ours_alone, metrics, users)
    theirs = _mlflow(users)
    ours = _ours(parts, _lifespan(theirs, parts, folder))
    prefix = os.environ.get(STATIC_PREFIX_ENV_VAR, "").rstrip("/")
    path = f"{prefix}{OTLP_TRACES_PATH}"
    spans = theirs if users is None else SpansByKey(theirs, parts, path)
    rest = Linked(Otlp(spans, parts, path), prefix, dashboard.PLACE)
    app: ASGIApp = _InFront(ours, rest, prefix)
    if users is not None:
        app = LogIns(app, parts, users, frozenset(f"{prefix}{path}" for path in FOR_EVERYBODY))
    return Counted(app, metrics, prefix)


FOR_EVERYBODY = (*health.PUBLIC_PATHS, "/health")  # the last is MLflow's


class _InFront:
    """Hands a request to the app it is for: ours by the paths of our routers, else MLflow's.

    MLflow's app is not changed and does not know: its middleware runs for its requests alone.

    Args:
        ours: our routes.
        theirs: MLflow's app.
        prefix: of every path, from `--static-prefix`.
    """

    def __init__(self, ours: FastAPI, theirs: ASGIApp, prefix: str) -> None:
        self._ours = ours
        self._theirs = theirs
        self._prefix = prefix
        self._places = tuple(f"{prefix}{place}" for place in ours.state.places)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; starting and stopping is ours, which includes MLflow's."""
        if scope["type"] == "lifespan":
            await self._ours(scope, receive, send)
        elif scope["type"] == "http" and self._is_ours(scope["path"]):
            scope["root_path"] = self._prefix
            scope[OURS] = True
            await self._ours(scope, receive, send)
        else:
            await self._theirs(scope, receive, send)

    def _is_ours(self, path: str) -> bool:
        return path.startswith(self._places) and any(
            path == place or path.startswith(f"{place}/") for place in self._places
        )


def _mlflow(users: MlflowUsers | None) -> FastAPI:
    app: FastAPI = create_fastapi_app() if users is None else users.app()
    return app


def _ours(parts: Parts, lifespan: Callable[[Any], AbstractAsyncContextManager[None]]) -> FastAPI:
    """Our routes, behind the guard and MLflow's own host and origin checks."""
    app = FastAPI(
        title="flowledger",
        version=flowledger.__version__,
        description=docs.DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
    )
    routers = [make(parts) for make in (*ROUTERS, docs.router)]
    asker = ServerAsker(parts)
    routers += [make(asker) for make in (*analytics.ROUTERS, dashboard.router)]
    for router in routers:
        app.include_router(router, responses=COMMON)
    app.state.places = tuple(place for router in routers for place in _places(router))
    app.openapi = lambda: docs.openapi(app, parts)  # type: ignore[method-assign]
    add_problem_handlers(app)
    if parts.users is not None:
        app.add_middleware(Guard, parts=parts, users=parts.users)
    init_fastapi_security(app)
    return app


def _places(router: APIRouter) -> list[str]:
    """Where a router's paths begin: its prefix, or each path when it has none."""
    if router.prefix:
        return [router.prefix]
    return [route.path for route in router.routes if isinstance(route, APIRoute)]


def _lifespan(
    theirs: FastAPI, parts: Parts, folder: MetricsFolder
) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """Start and stop MLflow's app and our parts together."""

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        async with theirs.router.lifespan_context(theirs):
            yield
        parts.close()
        folder.leave()

    return lifespan


def _settings() -> Settings:
    found = config.load(tracking_uri=os.environ.get(BACKEND_STORE_URI_ENV_VAR) or None)
    root = os.environ.get(ARTIFACT_ROOT_ENV_VAR) or found.artifact_root
    return msgspec.structs.replace(found, artifact_root=root)
