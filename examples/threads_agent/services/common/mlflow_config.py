"""Where calls are recorded: MLFLOW_TRACKING_URI, by default http://mlflow:5000.

MLFLOW_EXPERIMENT_NAME names one experiment for all, instead of one a persona and day. The keys of
an artifact store, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, are read by the MLflow server.
"""

import os

import flowledger

__all__ = ["configure", "tracking_uri"]


def tracking_uri() -> str:
    """The MLflow server of these services."""
    return os.environ.get("MLFLOW_TRACKING_URI") or "http://mlflow:5000"


def configure() -> None:
    """Record calls there from now on; nothing is connected here, and nothing is raised."""
    one_for_all = os.environ.get("MLFLOW_EXPERIMENT_NAME")
    flowledger.configure(
        tracking_uri=tracking_uri(),
        experiment=None if one_for_all else "{persona_id}_{date}",
        also_as={"input_tokens": "prompt_tokens", "output_tokens": "completion_tokens"},
    )
