"""The wrapped client does the same on the oldest and newest `openai` we promise to work with."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TESTS = sorted((ROOT / "tests").glob("test_wrap_openai*.py"))
# The shared fixtures need databases, which the other environment has not.
PYTEST = ("-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", "-p", "no:xdist")


@pytest.mark.parametrize(("environment", "wanted"), [("openai2", "2.20.0"), ("openai3", "3.")])
def test_the_wrapped_client_passes_its_tests(environment: str, wanted: str) -> None:
    python = ROOT / f".venv-{environment}" / "bin" / "python"
    assert python.exists(), f"{python} is missing: run `make install`"
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FLOWLEDGER_", "MLFLOW_", "PYTEST_"))
    }
    version = "import openai; print(openai.__version__)"
    found = subprocess.run([python, "-c", version], capture_output=True, text=True, check=True)
    assert found.stdout.startswith(wanted)
    run = subprocess.run(
        [python, *PYTEST, *TESTS], cwd=ROOT, env=environ, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
