"""The built wheel holds everything the package needs."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
UV = Path(sys.executable).with_name("uv")


def build_wheel(folder: Path) -> Path:
    build: list[str | Path] = [
        UV,
        "build",
        "--wheel",
        "--no-build-isolation",
        "--python",
        sys.executable,
    ]
    subprocess.run([*build, "--out-dir", folder, ROOT], check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    return wheel


def test_the_wheel_holds_every_file_of_the_package_and_works_by_itself(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if not name.endswith("/")}
        archive.extractall(tmp_path / "installed")
    source = ROOT / "src"
    files = (path for path in source.rglob("*") if path.is_file())
    expected = {str(path.relative_to(source)) for path in files if path.suffix != ".pyc"}
    assert set() == expected - held
    said = subprocess.check_output(
        [sys.executable, "-c", "import flowledger; print(flowledger.__file__)"],
        env={"PYTHONPATH": str(tmp_path / "installed")},
        cwd=tmp_path,
        text=True,
    )
    assert str(tmp_path / "installed") in said


def test_the_demo_runs_with_what_the_server_extra_installs(tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    install: list[str | Path] = [UV, "pip", "install", "--quiet", "--python", python]
    extra = f"{build_wheel(tmp_path)}[server]"
    subprocess.run(
        [UV, "venv", "--quiet", "--python", sys.executable, python.parent.parent], check=True
    )
    # The versions that were tested, and nothing besides what the extra asks for.
    subprocess.run([*install, "--constraint", ROOT / "requirements/dev.txt", extra], check=True)
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("FLOWLEDGER_", "MLFLOW_"))}
    said = subprocess.check_output(
        [python.with_name("flowledger"), "demo", "--stub", "--once", "--json", "--calls", "3"],
        env={**environ, "FLOWLEDGER_HOME": str(tmp_path / "home")},
        cwd=tmp_path,
    )
    numbers = json.loads(said)
    assert (3, 3) == (numbers["made"], numbers["stored"])
