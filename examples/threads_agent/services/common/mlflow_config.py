"""Where calls are recorded, and under which names.

| variable | meaning |
|---|---|
| MLFLOW_TRACKING_URI | MLflow server, default http://mlflow:5000 |
| MLFLOW_EXPERIMENT_NAME | one experiment for all calls, instead of one a persona and day |
| AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY | read by the MLflow server, where it keeps artifacts on S3 |
"""

import os

import flowledger

__all__ = ["EXPERIMENT", "configure", "tracking_uri"]

DEFAULT_TRACKING_URI = "http://mlflow:5000"
EXPERIMENT = "{persona_id}_{date}"
NAMES = {"input_tokens": "prompt_tokens", "output_tokens": "completion_tokens"}


def tracking_uri() -> str:
    """The MLflow server of these services."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_TRACKING_URI


def configure() -> None:
    """Record calls there from now on; nothing is connected here, and nothing is raised."""
    one_for_all = os.environ.get("MLFLOW_EXPERIMENT_NAME")
    flowledger.configure(
        tracking_uri=tracking_uri(),
        experiment=None if one_for_all else EXPERIMENT,
        also_as=NAMES,
    )
