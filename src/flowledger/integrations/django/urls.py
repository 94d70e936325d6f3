"""The ledger's addresses, for `include("flowledger.integrations.django.urls")`."""

from django.urls import path

from flowledger.integrations.django import views

__all__ = ["app_name", "urlpatterns"]

app_name = "flowledger"
urlpatterns = [
    path("tracking/experiments/", views.experiments, name="experiments"),
    path("tracking/runs/", views.runs, name="runs"),
    path("tracking/metrics/", views.metrics, name="metrics"),
    path("tracking/health/", views.health, name="health"),
]
