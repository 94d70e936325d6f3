"""The Django application, in a process of its own: Django is set up once and for all in one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path


def test_the_django_application_does_what_it_says(tmp_path: Path, empty_sqlite: Path) -> None:
    """`tests/djangoapp/cases.py` says what, case by case."""
    shutil.copy(empty_sqlite, tmp_path / "mlflow.db")
    cases = Path(__file__).parent / "djangoapp" / "cases.py"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", cases],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "DJANGOAPP_FOLDER": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert 0 == done.returncode, done.stdout[-6000:] + done.stderr[-2000:]
