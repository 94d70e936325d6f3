"""The server: MLflow's own app with flowledger's routes before it.

`mlflow server --app-name flowledger` finds `create_app` by the `mlflow.app` entry point.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["create_app"]


def create_app() -> "FastAPI":
    """MLflow's app, UI and API, with the ingest of calls in front."""
    from flowledger.server.app import create

    return create()
