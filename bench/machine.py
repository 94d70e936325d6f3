"""What the numbers were measured on."""

import os
import platform
from importlib.metadata import version
from typing import Any

__all__ = ["facts", "headline"]

PACKAGES = ("flowledger", "mlflow", "opentelemetry-sdk", "sqlalchemy", "psycopg", "msgspec")


def facts() -> dict[str, Any]:
    """The machine, its load and the versions of the peers."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "load": [round(load, 2) for load in os.getloadavg()],
        **{name: version(name) for name in PACKAGES},
    }


def headline(machine: dict[str, Any]) -> str:
    """The facts as lines for people."""
    versions = ", ".join(f"{name} {machine[name]}" for name in PACKAGES)
    load = " ".join(str(load) for load in machine["load"])
    return (
        f"{machine['cores']} cores of {machine['processor']}, {machine['system']}, "
        f"Python {machine['python']}, load {load}\n{versions}"
    )


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = (line.partition(":")[2].strip() for line in file if "model name" in line)
            return next(names, platform.machine())
    except OSError:
        return platform.machine()
