"""The project's settings; everything a deployment changes comes from the environment."""

import os
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from apps.mlflow_integration.signals import TRACKED_MODELS
from apps.mlflow_integration.tracker import EXPERIMENTS

BASE_DIR = Path(__file__).parent.parent
DATABASE_URL = os.environ.get(
    "MLFLOW_BACKEND_STORE_URI", "postgresql://postgres:postgres@db:5432/radai_db"
)


def database(url: str) -> dict[str, object]:
    """Django's words for a PostgreSQL URL; `?host=` names the folder of a socket."""
    parts = urlsplit(url)
    socket = parse_qs(parts.query).get("host", [""])[0]
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path.lstrip("/"),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or socket,
        "PORT": parts.port or "",
    }


DEBUG = os.environ.get("DJANGO_DEBUG", "false").lower() == "true"
SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY", "only for development" if DEBUG else "")
ALLOWED_HOSTS = os.environ.get("DJANGO_ALLOWED_HOSTS", "localhost,127.0.0.1").split(",")
ROOT_URLCONF = "aiflow.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
DATABASES = {"default": database(DATABASE_URL)}
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "flowledger.integrations.django",
    "apps.mlflow_integration",
    "apps.engineering",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "flowledger.integrations.django.middleware.FlowledgerMiddleware",
]
FLOWLEDGER = {
    "TRACKING_URI": os.environ.get("MLFLOW_TRACKING_URI", "http://mlflow:5000"),
    "LEDGER_URI": DATABASE_URL,
    "EXPERIMENTS": EXPERIMENTS,
    "TRACKED_MODELS": TRACKED_MODELS,
    "PERMISSION": "apps.mlflow_integration.views.may_read",
}
