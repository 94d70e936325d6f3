"""The application as Django loads it."""

from django.apps import AppConfig

import flowledger
from flowledger import config
from flowledger.integrations.django import conf, signals

__all__ = ["FlowledgerConfig"]


class FlowledgerConfig(AppConfig):  # type: ignore[misc]
    """Takes the settings over when Django is ready, and records models that are saved."""

    name = "flowledger.integrations.django"
    label = "flowledger"
    verbose_name = "flowledger"

    def ready(self) -> None:
        """Configure flowledger from Django's settings, and watch `TRACKED_MODELS`."""
        if config.switched_on():
            if given := conf.recording():
                flowledger.configure(**given)
            signals.watch()
