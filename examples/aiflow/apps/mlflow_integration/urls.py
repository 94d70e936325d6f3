"""The addresses of the REST API, below `api/v1/mlflow/`."""

from django.urls import path

from apps.mlflow_integration import views

app_name = "mlflow_integration"
urlpatterns = [
    path("tracking/experiments/", views.experiments, name="experiments"),
    path("tracking/runs/", views.runs, name="runs"),
    path("tracking/metrics/", views.metrics, name="metrics"),
    path("tracking/health/", views.health, name="health"),
]
