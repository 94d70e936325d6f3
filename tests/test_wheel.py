"""The built wheel holds everything the package needs."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_wheel_holds_every_file_of_the_package_and_works_by_itself(tmp_path: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    build: list[str | Path] = [
        uv,
        "build",
        "--wheel",
        "--no-build-isolation",
        "--python",
        sys.executable,
    ]
    subprocess.run([*build, "--out-dir", tmp_path, ROOT], check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
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
