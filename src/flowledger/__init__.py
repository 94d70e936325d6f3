"""The record of every LLM call an application makes, kept on MLflow."""

__version__ = "0.1.0"

from flowledger.capture import (
    carry,
    configure,
    context,
    flush,
    job,
    log_artifact,
    log_dict,
    log_metric,
    log_metrics,
    log_param,
    log_params,
    log_text,
    record,
    set_tag,
    set_tags,
    span,
    track,
    wrap,
)

__all__ = [
    "__version__",
    "carry",
    "configure",
    "context",
    "flush",
    "job",
    "log_artifact",
    "log_dict",
    "log_metric",
    "log_metrics",
    "log_param",
    "log_params",
    "log_text",
    "record",
    "set_tag",
    "set_tags",
    "span",
    "track",
    "wrap",
]
