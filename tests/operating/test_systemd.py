"""The units for systemd are read without a complaint, and are hardened."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.needs import need_program

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
FLOWLEDGER = Path(sys.executable).with_name("flowledger")
MOST_EXPOSURE = 2.0  # of 10, by systemd's own measure


@pytest.fixture(params=["flowledger-server.service", "flowledger-collector@.service"])
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A unit whose command is the one that is installed here, for the user `daemon`."""
    name: str = request.param
    text = (UNITS / name).read_text()
    installed = tmp_path / name.replace("@", "@daemon")
    installed.write_text(text.replace("/opt/flowledger/bin/flowledger", str(FLOWLEDGER)))
    return installed


def analyzed(*arguments: str) -> str:
    need_program("systemd-analyze", "systemd")
    done = subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60
    )
    assert 0 == done.returncode, done.stderr
    assert "" == done.stderr
    return done.stdout


def test_systemd_reads_a_unit_without_a_complaint(unit: Path) -> None:
    assert "" == analyzed("verify", str(unit))


def test_a_unit_leaves_little_exposed(unit: Path) -> None:
    told = analyzed("security", "--offline=true", str(unit))
    [exposure] = re.findall(r"exposure level for \S+ ([\d.]+)", told.replace(": ", " "))
    assert float(exposure) <= MOST_EXPOSURE


def test_a_unit_runs_a_command_that_there_is(unit: Path) -> None:
    [command] = re.findall(r"^ExecStart=(.+)$", unit.read_text(), re.MULTILINE)
    done = subprocess.run([*command.split(), "--help"], capture_output=True, timeout=60)
    assert 0 == done.returncode
