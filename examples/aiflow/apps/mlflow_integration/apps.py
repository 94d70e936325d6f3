"""The application as Django loads it; flowledger's own application takes the settings over."""

from django.apps import AppConfig


class MLflowIntegrationConfig(AppConfig):  # type: ignore[misc]
    """MLflow model orchestration."""

    name = "apps.mlflow_integration"
    verbose_name = "MLflow model orchestration"
