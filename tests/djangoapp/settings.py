"""The settings of a small Django project over a real SQLite database."""

import os
from pathlib import Path

FOLDER = Path(os.environ["DJANGOAPP_FOLDER"])
SECRET_KEY = "of a test"
ALLOWED_HOSTS = ["testserver"]
USE_TZ = True
ROOT_URLCONF = "tests.djangoapp.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": FOLDER / "app.db"}}
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "flowledger.integrations.django",
    "tests.djangoapp",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "flowledger.integrations.django.middleware.FlowledgerMiddleware",
]
FLOWLEDGER = {
    "TRACKING_URI": f"sqlite:///{FOLDER / 'mlflow.db'}",
    "HOME": str(FOLDER / "home"),
    "TRACKED_MODELS": {
        "djangoapp.Report": {"feature": "pid_verification", "fields": ["status", "issues"]}
    },
    "EXTRACTORS": ["tests.djangoapp.views.tenant_of"],
}
