"""The application as Django loads it."""

from django.apps import AppConfig


class EngineeringConfig(AppConfig):  # type: ignore[misc]
    """Drawings and documents, and what AI makes of them."""

    name = "apps.engineering"
