"""An overview as it is made without a ledger: `mlflow.search_runs` into pandas, then sums."""

import time
from datetime import UTC, datetime, timedelta

import mlflow

from bench.processes import argument, serve

mlflow.set_tracking_uri(argument()["uri"])


def overview(days: int, runs: int) -> float:
    """Seconds for what `intent_detection.md` asks of the last so many days, the second time."""
    _overview(days, runs)
    started = time.perf_counter()
    _overview(days, runs)
    return time.perf_counter() - started


def _overview(days: int, runs: int) -> None:
    since = int((datetime.now(UTC) - timedelta(days=days)).timestamp() * 1000)
    found = mlflow.search_runs(
        search_all_experiments=True,
        filter_string=f"attributes.start_time >= {since}",
        max_results=runs,
    )
    if len(found) < 0.9 * runs:
        raise LookupError(f"only {len(found)} runs were found: this measures nothing")
    answered = {
        "total_runs": len(found),
        "success_rate": (found["status"] == "FINISHED").mean() * 100,
        "avg_confidence": found["metrics.confidence_score"].mean(),
        "avg_response_time_ms": found["metrics.latency_ms"].mean(),
        "template_match_rate": found["metrics.template_match_rate"].mean(),
        "intent_distribution": found["tags.detected_intent"].value_counts().to_dict(),
        "user_role_distribution": found["tags.user_role"].value_counts().to_dict(),
        "module_distribution": found["tags.current_module"].value_counts().to_dict(),
        "total_tokens": found["metrics.total_tokens"].sum(),
        "total_cost_usd": found["metrics.cost_usd"].sum(),
    }
    if not answered["intent_distribution"]:
        raise LookupError("runs have no intents: this measures nothing")


serve(overview=overview)
