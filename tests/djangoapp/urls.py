"""The addresses of the project, the ledger's among them."""

from django.urls import include, path

from tests.djangoapp import views

urlpatterns = [
    path("ask", views.ask),
    path("aask", views.aask),
    path("stream", views.stream),
    path("astream", views.astream),
    path("api/v1/mlflow/", include("flowledger.integrations.django.urls")),
]
