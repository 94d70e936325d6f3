"""Capture: what the application does to be recorded."""

from flowledger.capture.context import context
from flowledger.capture.decorators import (
    track_custom,
    track_image,
    track_rag,
    track_text,
    track_vision,
)
from flowledger.capture.explicit import record
from flowledger.capture.prompts import prompt
from flowledger.capture.recorder import configure, flush
from flowledger.capture.threads import carry
from flowledger.capture.tracking import track
from flowledger.capture.wrapping import wrap

__all__ = [
    "carry",
    "configure",
    "context",
    "flush",
    "prompt",
    "record",
    "track",
    "track_custom",
    "track_image",
    "track_rag",
    "track_text",
    "track_vision",
    "wrap",
]
