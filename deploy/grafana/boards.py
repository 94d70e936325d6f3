"""What each dashboard shows.

Queries read what `/metrics` of a flowledger server tells and what `deploy/prometheus/rules.yml`
records. Numbers that are asked of the database are the same from every replica: the largest is
taken, never a sum.
"""

from typing import NamedTuple

OURS = 'job=~"$job"'
EVERY = "[$__rate_interval]"


class Panel(NamedTuple):
    """A panel: what it shows, how, its unit, and its queries by the name of their lines."""

    title: str
    kind: str
    unit: str
    queries: dict[str, str]
    says: str = ""


class Board(NamedTuple):
    """A dashboard."""

    name: str
    title: str
    says: str
    panels: list[Panel]


def rate(metric: str, by: str, **labels: str) -> str:
    """How fast a counter grows per second, added up by a label."""
    return f"sum by ({by}) (rate({metric}{{{_matching(labels)}}}{EVERY}))"


def grown(metric: str, by: str, **labels: str) -> str:
    """How much a counter grew in the time that is shown, added up by a label."""
    return f"sum by ({by}) (increase({metric}{{{_matching(labels)}}}[$__range]))"


def quantile(part: float, histogram: str, by: str = "") -> str:
    """A quantile of a histogram, by a label."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({part}, {rate(f'{histogram}_bucket', labels)})"


def same(metric: str, by: str = "job") -> str:
    """A gauge that every replica tells the same."""
    return f"max by ({by}) ({metric}{{{OURS}}})"


def _matching(labels: dict[str, str]) -> str:
    return ", ".join([OURS, *(f'{name}="{value}"' for name, value in labels.items())])


CALLS, TOKENS, COST = (
    "flowledger_calls_total",
    "flowledger_tokens_total",
    "flowledger_cost_usd_total",
)
LATENCY = "flowledger_call_latency_seconds"


def per_call(metric: str, by: str) -> str:
    """A counter divided by the number of calls, by a label."""
    return f"{rate(metric, by)} / ({rate(CALLS, by)} > 0)"


BOARDS = [
    Board(
        "tokens",
        "Tokens by persona",
        "Who uses how many tokens, in and out.",
        [
            Panel("Tokens by persona", "bars", "short", {"{{persona}}": grown(TOKENS, "persona")}),
            Panel("Tokens by model", "bars", "short", {"{{model}}": grown(TOKENS, "model")}),
            Panel(
                "Tokens a minute by persona",
                "line",
                "short",
                {"{{persona}}": f"60 * {rate(TOKENS, 'persona')}"},
            ),
            Panel(
                "Tokens a minute, in and out",
                "line",
                "short",
                {"{{direction}}": f"60 * {rate(TOKENS, 'direction')}"},
            ),
            Panel(
                "Tokens a call by persona",
                "line",
                "short",
                {"{{persona}}": per_call(TOKENS, "persona")},
            ),
            Panel("Calls by persona", "bars", "short", {"{{persona}}": grown(CALLS, "persona")}),
        ],
    ),
    Board(
        "latency",
        "API latency trends",
        "How long calls of models take, as the application sees it.",
        [
            Panel(
                "Latency",
                "line",
                "s",
                {f"p{part * 100:g}": quantile(part, LATENCY) for part in (0.5, 0.95, 0.99)},
            ),
            Panel(
                "95th percentile of the last ten minutes, and its limit",
                "line",
                "s",
                {
                    "p95": f"flowledger:latency_p95_seconds{{{OURS}}}",
                    "limit": f"flowledger:limit:latency_p95_seconds{{{OURS}}}",
                },
                "Asked of the ledger: exact, whichever way calls came.",
            ),
            Panel(
                "95th percentile by model",
                "line",
                "s",
                {"{{model}}": quantile(0.95, LATENCY, "model")},
            ),
            Panel(
                "95th percentile by feature",
                "line",
                "s",
                {"{{feature}}": quantile(0.95, LATENCY, "feature")},
            ),
            Panel("Latencies", "heat", "s", {"{{le}}": rate(f"{LATENCY}_bucket", "le")}),
        ],
    ),
    Board(
        "cost",
        "Cost per persona",
        "What calls cost, in US dollars. Calls whose price is not known are counted beside it.",
        [
            Panel(
                "The last hour",
                "number",
                "currencyUSD",
                {"spent": f"flowledger:cost_usd_per_hour{{{OURS}}}"},
                "Asked of the ledger: exact, whichever way calls came.",
            ),
            Panel(
                "Budget for an hour",
                "number",
                "currencyUSD",
                {"budget": f"flowledger:limit:cost_usd_per_hour{{{OURS}}}"},
            ),
            Panel(
                "Calls without a price",
                "number",
                "short",
                {"calls": grown("flowledger_unpriced_calls_total", "job")},
            ),
            Panel(
                "A call costs",
                "number",
                "currencyUSD",
                {"on average": f"{grown(COST, 'job')} / ({grown(CALLS, 'job')} > 0)"},
            ),
            Panel(
                "Cost by persona", "bars", "currencyUSD", {"{{persona}}": grown(COST, "persona")}
            ),
            Panel("Cost by model", "bars", "currencyUSD", {"{{model}}": grown(COST, "model")}),
            Panel(
                "Dollars an hour by persona",
                "line",
                "currencyUSD",
                {"{{persona}}": f"3600 * {rate(COST, 'persona')}"},
            ),
            Panel(
                "The last hour by feature",
                "line",
                "currencyUSD",
                {"{{feature}}": same("flowledger_hour_cost_usd", "feature")},
            ),
        ],
    ),
    Board(
        "models",
        "Model comparison",
        "The same numbers for each model, side by side.",
        [
            Panel("Calls a minute", "line", "short", {"{{model}}": f"60 * {rate(CALLS, 'model')}"}),
            Panel(
                "Failed calls",
                "line",
                "percentunit",
                {
                    "{{model}}": f"({rate(CALLS, 'model', status='failed')} or"
                    f" 0 * {rate(CALLS, 'model')}) / ({rate(CALLS, 'model')} > 0)"
                },
            ),
            Panel("Median latency", "line", "s", {"{{model}}": quantile(0.5, LATENCY, "model")}),
            Panel(
                "95th percentile of latency",
                "line",
                "s",
                {"{{model}}": quantile(0.95, LATENCY, "model")},
            ),
            Panel("A call costs", "line", "currencyUSD", {"{{model}}": per_call(COST, "model")}),
            Panel("Tokens a call", "line", "short", {"{{model}}": per_call(TOKENS, "model")}),
        ],
    ),
    Board(
        "health",
        "Service health",
        "Whether calls arrive, and whether the service has room for more.",
        [
            Panel(
                "Servers that answer",
                "number",
                "short",
                {"servers": f"count by (job) (flowledger_store_up{{{OURS}}})"},
            ),
            Panel(
                "The database answers",
                "number",
                "bool_yes_no",
                {"answers": same("flowledger_store_up")},
            ),
            Panel(
                "Records refused for good",
                "number",
                "short",
                {"records": grown("flowledger_ingest_refused_records_total", "job")},
            ),
            Panel(
                "Records no journal could keep",
                "number",
                "short",
                {"records, ever": same("flowledger_dropped_records")},
            ),
            Panel("Calls stored a second", "line", "short", {"{{status}}": rate(CALLS, "status")}),
            Panel(
                "Failed calls of the last ten minutes",
                "line",
                "percentunit",
                {
                    "failed": f"flowledger:error_ratio{{{OURS}}}",
                    "limit": f"flowledger:limit:error_ratio{{{OURS}}}",
                },
                "Asked of the ledger: exact, whichever way calls came.",
            ),
            Panel(
                "From the end of a call to its commit",
                "line",
                "s",
                {
                    f"p{part * 100:g}": quantile(part, "flowledger_ingest_lag_seconds")
                    for part in (0.5, 0.95)
                },
            ),
            Panel(
                "Batches by answer",
                "line",
                "short",
                {"{{status}}": rate("flowledger_ingest_batches_total", "status")},
            ),
            Panel(
                "Batches under way",
                "line",
                "short",
                {"{{job}}": f"sum by (job) (flowledger_ingest_batches_in_flight{{{OURS}}})"},
            ),
            Panel(
                "HTTP requests by status",
                "line",
                "reqps",
                {"{{status}}": rate("mlflow_requests_total", "status")},
            ),
            Panel(
                "HTTP requests: 95th percentile by route",
                "line",
                "s",
                {"{{route}}": quantile(0.95, "mlflow_request_duration_seconds", "route")},
            ),
            Panel(
                "Silent for",
                "line",
                "s",
                {"{{feature}}": f"flowledger:silent_seconds{{{OURS}}}"},
                "Features with calls within the last day, and how long ago the last one was.",
            ),
            Panel(
                "Disk that is free",
                "line",
                "percentunit",
                {"{{instance}} {{used_for}}": f"flowledger:disk_free_ratio{{{OURS}}}"},
            ),
            Panel("Database", "line", "bytes", {"size": same("flowledger_database_bytes")}),
            Panel(
                "MLflow",
                "line",
                "short",
                {
                    "runs under way": same("mlflow_active_runs"),
                    "experiments": same("mlflow_experiments_total"),
                },
            ),
        ],
    ),
]
