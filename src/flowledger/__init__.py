"""The record of every LLM call an application makes, kept on MLflow."""

__version__ = "0.1.0"

from flowledger.capture import (
    carry,
    configure,
    context,
    flush,
    prompt,
    record,
    track,
    track_custom,
    track_image,
    track_rag,
    track_text,
    track_vision,
    wrap,
)

__all__ = [
    "__version__",
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
