"""The project's addresses."""

from django.urls import include, path

from apps.mlflow_integration.views import docs

urlpatterns = [
    path("api/v1/mlflow/", include("apps.mlflow_integration.urls")),
    path("api/v1/", include("apps.engineering.urls")),
    path("api/docs/", docs),
]
