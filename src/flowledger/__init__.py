"""The record of every LLM call an application makes, kept on MLflow."""

__version__ = "0.1.0"

from flowledger.capture import carry, configure, context, flush, record, track, wrap

__all__ = ["__version__", "carry", "configure", "context", "flush", "record", "track", "wrap"]
