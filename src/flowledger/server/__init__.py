"""The server: MLflow's own app with flowledger's routes before it.

`mlflow server --app-name flowledger` finds `create_app` by the `mlflow.app` entry point, and
`flowledger server` runs that with checks before it.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp

__all__ = ["create_app"]


def create_app() -> "ASGIApp":
    """MLflow's app, UI and API, with ours in front."""
    from flowledger.server.metrics_folder import MetricsFolder

    folder = MetricsFolder()  # before MLflow imports prometheus_client
    from flowledger.server.app import create

    return create(folder)
