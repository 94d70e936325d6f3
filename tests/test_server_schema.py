"""Schemathesis finds no request, right or wrong, that our routes do not answer as documented."""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.server_client import running


def test_every_route_answers_as_its_documentation_says(empty_sqlite: Path, tmp_path: Path) -> None:
    shutil.copy(empty_sqlite, tmp_path / "mlflow.db")
    with running(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path, workers=1) as server:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run"),
                f"{server.url}/api/openapi.json",
                *("--checks", "all", "--max-examples", "15", "--no-color", "--seed", "1"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert 0 == done.returncode, _shown(done.stdout)
        assert "Traceback" not in server.log.read_text()


def _shown(text: str) -> str:
    """The end of what was printed, without the longest inputs."""
    return "\n".join(line[:300] for line in text.splitlines()[-150:])
