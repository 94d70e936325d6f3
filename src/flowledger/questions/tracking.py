"""Experiments, runs and metrics in the words of MLflow's `search_runs`, as `aiflow.md` shows them.

Whatever web framework serves them: plain values, ready to become JSON.
"""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

import msgspec

from flowledger.questions.ledger import Ledger
from flowledger.questions.rows import Run, Sums

__all__ = ["experiments", "flat", "metrics_of", "time_text"]


def experiments(ledger: Ledger, readable: Collection[int] | None = None) -> list[dict[str, str]]:
    """Every experiment that is not deleted, with the feature whose calls go there as its key.

    Args:
        ledger: what is asked.
        readable: ids of the experiments that may be seen at all; None is every one.
    """
    features = {row.experiment_id: row.feature for row in ledger.features() if row.feature}
    return [
        {
            "key": features.get(row.experiment_id, row.name),
            "name": row.name,
            "experiment_id": str(row.experiment_id),
        }
        for row in ledger.experiments()
        if row.lifecycle_stage == "active" and (readable is None or row.experiment_id in readable)
    ]


def metrics_of(sums: Sums) -> dict[str, Any]:
    """Sums and averages over runs; times in seconds, success in per cent."""
    return {
        "total_runs": sums.calls,
        "avg_execution_time": sums.mean_latency_ms / 1000,
        "success_rate": sums.success_rate,
        "avg_confidence": sums.mean_confidence,
        "total_cost": sums.cost_usd,
        "total_tokens": sums.total_tokens,
        "unpriced_runs": sums.unpriced,
        "estimated_runs": sums.estimated,
        "estimated_cost_usd": sums.estimated_cost_usd,
    }


def flat(run: Run) -> dict[str, Any]:
    """A run as a row of MLflow's own `search_runs`, without what is not known of it."""
    details = msgspec.json.decode(run.details)
    metrics = {
        "execution_time": run.latency_ms / 1000,
        "latency_ms": run.latency_ms,
        "confidence_score": run.confidence,
        "input_tokens": run.input_tokens,
        "output_tokens": run.output_tokens,
        "total_tokens": run.total_tokens,
        "cost_usd": run.cost_usd,
        **details.get("metrics", {}),
    }
    params = {
        "model": run.model,
        "provider": run.provider,
        "feature": run.feature,
        "operation": run.operation,
        **details.get("params", {}),
    }
    tags = {
        "status": "success" if run.success else "failed",
        "error_type": run.error_type,
        "user_id": run.user_id,
        "session_id": run.session_id,
        "persona_id": run.persona_id,
        **details.get("tags", {}),
    }
    flat = {
        "run_id": run.id,
        "experiment_id": str(run.experiment_id),
        "status": "FINISHED" if run.success else "FAILED",
        "start_time": time_text(run.start_ms),
        "end_time": time_text(round(run.start_ms + run.latency_ms)),
    }
    for kind, values in (("metrics", metrics), ("params", params), ("tags", tags)):
        flat |= {f"{kind}.{name}": value for name, value in values.items() if value is not None}
    return flat


def time_text(unix_ms: int) -> str:
    """A time of the ledger: ISO 8601 in UTC."""
    moment = datetime.fromtimestamp(unix_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
