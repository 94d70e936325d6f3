"""The platform's own addresses."""

from django.urls import path

from apps.engineering import views

urlpatterns = [
    path("pid/verify/", views.verify),
    path("pfd/convert/", views.convert),
    path("crs/check/", views.check),
]
