"""Capture: what the application does to be recorded."""

from flowledger.capture.calls import call
from flowledger.capture.context import context
from flowledger.capture.decorators import (
    track_custom,
    track_image,
    track_rag,
    track_text,
    track_vision,
)
from flowledger.capture.explicit import record
from flowledger.capture.here import (
    log_artifact,
    log_dict,
    log_metric,
    log_metrics,
    log_param,
    log_params,
    log_text,
    set_tag,
    set_tags,
)
from flowledger.capture.jobs import job
from flowledger.capture.prompts import prompt
from flowledger.capture.recorder import configure, flush
from flowledger.capture.spans import span
from flowledger.capture.threads import carry
from flowledger.capture.tracking import track
from flowledger.capture.wrapping import wrap

__all__ = [
    "call",
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
    "prompt",
    "record",
    "set_tag",
    "set_tags",
    "span",
    "track",
    "track_custom",
    "track_image",
    "track_rag",
    "track_text",
    "track_vision",
    "wrap",
]
