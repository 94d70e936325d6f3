"""The record of every LLM call an application makes, kept on MLflow."""

__version__ = "0.1.0"

from typing import TYPE_CHECKING, Any

from flowledger.capture import (
    call,
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
    prompt,
    record,
    set_tag,
    set_tags,
    span,
    track,
    track_custom,
    track_image,
    track_rag,
    track_text,
    track_vision,
    wrap,
)

if TYPE_CHECKING:
    from flowledger.chat.asking import achat, chat

__all__ = [
    "__version__",
    "achat",
    "call",
    "carry",
    "chat",
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


def __getattr__(name: str) -> Any:
    """Load chat when it is first asked for: an application that only records does not need it."""
    if name not in ("achat", "chat"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import flowledger.chat as package

    return package if name == "chat" else package.achat
