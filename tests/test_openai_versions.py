"""The wrapped client does the same on the oldest `openai` we promise to work with."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
PYTHON = ROOT / ".venv-openai2" / "bin" / "python"
TESTS = sorted((ROOT / "tests").glob("test_wrap_openai*.py"))
# The shared fixtures need databases, which the other environment has not.
PYTEST = ("-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", "-p", "no:xdist")


def test_the_wrapped_client_passes_its_tests_on_openai_2_20() -> None:
    assert PYTHON.exists(), f"{PYTHON} is missing: run `make install`"
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FLOWLEDGER_", "MLFLOW_", "PYTEST_"))
    }
    version = "import openai; print(openai.__version__)"
    found = subprocess.run([PYTHON, "-c", version], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "2.20.0"
    run = subprocess.run(
        [PYTHON, *PYTEST, *TESTS], cwd=ROOT, env=environ, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
