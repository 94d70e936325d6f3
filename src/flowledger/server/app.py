"""Putting our routes in front of MLflow's."""

import os

from fastapi import FastAPI
from mlflow.server.constants import ARTIFACT_ROOT_ENV_VAR, BACKEND_STORE_URI_ENV_VAR
from mlflow.server.fastapi_app import create_fastapi_app

from flowledger import config
from flowledger.config import Destination
from flowledger.server import ingest

__all__ = ["create"]


def create() -> FastAPI:
    """The app that one server worker runs; MLflow's command left its settings in the environment."""
    app: FastAPI = create_fastapi_app()
    mlflow_routes = list(app.router.routes)
    app.router.routes.clear()
    app.include_router(ingest.router_for(_destination()))
    app.router.routes.extend(mlflow_routes)
    return app


def _destination() -> Destination:
    settings = config.load(tracking_uri=os.environ.get(BACKEND_STORE_URI_ENV_VAR) or None)
    return Destination(
        tracking_uri=settings.tracking_uri,
        artifact_root=os.environ.get(ARTIFACT_ROOT_ENV_VAR) or settings.artifact_root,
        store_as=settings.store_as,
    )
