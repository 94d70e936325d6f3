"""A wrapped client does the same on the oldest and the newest SDKs we promise to work with."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# The shared fixtures need databases, which the other environments do not have.
PYTEST = ("-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", "-p", "no:xdist")


@pytest.mark.parametrize(
    ("environment", "package", "wanted"),
    [
        ("openai2", "openai", "2.20.0"),
        ("openai3", "openai", "3."),
        ("anthropic0", "anthropic", "0.70.0"),
        ("anthropic2", "anthropic", "2."),
    ],
)
def test_the_wrapped_client_passes_its_tests(environment: str, package: str, wanted: str) -> None:
    python = ROOT / f".venv-{environment}" / "bin" / "python"
    assert python.exists(), f"{python} is missing: run `make install`"
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FLOWLEDGER_", "MLFLOW_", "PYTEST_"))
    }
    version = f"import {package}; print({package}.__version__)"
    found = subprocess.run([python, "-c", version], capture_output=True, text=True, check=True)
    assert found.stdout.startswith(wanted)
    tests = sorted((ROOT / "tests").glob(f"test_wrap_{package}*.py"))
    run = subprocess.run(
        [python, *PYTEST, *tests], cwd=ROOT, env=environ, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
