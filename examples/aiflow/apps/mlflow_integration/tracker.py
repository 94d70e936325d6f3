"""The central tracker: which experiment a feature has, and results that are logged by hand."""

from collections.abc import Mapping
from typing import Any

import flowledger
from flowledger.config import switched_on, without_password

EXPERIMENTS = {
    "pid_verification": "P&ID Design Verification",
    "pfd_conversion": "PFD to P&ID Conversion",
    "crs_analysis": "CRS Document Analysis",
    "visual_generation": "Visual Diagram Generation",
}
SETTINGS = ("temperature", "max_tokens", "top_p", "seed", "size", "quality", "n")
COSTS = ("cost_usd", "total_cost", "api_cost", "cost")


class MLflowTracker:
    """Logs results of AI operations; never raises, never waits."""

    @property
    def enabled(self) -> bool:
        """Whether anything is recorded: `MLFLOW_ENABLED`."""
        return switched_on()

    @property
    def tracking_uri(self) -> str:
        """Where records go, without a password."""
        from django.conf import settings

        return without_password(settings.FLOWLEDGER["TRACKING_URI"])

    def log_experiment_result(
        self,
        feature: str,
        operation: str,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, Any] | None = None,
        error: BaseException | str | None = None,
    ) -> str | None:
        """Log one operation that already happened; returns the id of its MLflow run.

        Args:
            feature: decides the experiment.
            operation: name of the run.
            params: `model` and the model's settings among them are known as such.
            metrics: `execution_time` is in seconds, a cost in US dollars.
            tags: written as they are; `status: failed` says that it failed.
            error: what went wrong.
        """
        if not self.enabled:
            return None
        params, metrics, tags = dict(params or {}), dict(metrics or {}), dict(tags or {})
        seconds = metrics.get("execution_time")
        return flowledger.record(
            feature=feature,
            operation=operation,
            model=params.pop("model", None),
            settings={name: params.pop(name) for name in SETTINGS if name in params},
            latency_ms=None if seconds is None else seconds * 1000,
            cost_usd=next((metrics[name] for name in COSTS if name in metrics), None),
            success=tags.pop("status", "success") not in ("failed", "failure", "error"),
            error=error,
            params=params,
            metrics=metrics,
            tags=tags,
        )


mlflow_tracker = MLflowTracker()
