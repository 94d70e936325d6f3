"""The project's addresses."""

from django.urls import include, path

from apps.engineering import views
from apps.mlflow_integration.views import docs

urlpatterns = [
    path("api/v1/mlflow/", include("apps.mlflow_integration.urls")),
    path("api/v1/pid/verify/", views.verify),
    path("api/v1/pfd/convert/", views.convert),
    path("api/v1/crs/check/", views.check),
    path("api/docs/", docs),
]
