"""The layout: a module imports only from lines above its own in the design, and stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import flowledger

SOURCE = Path(flowledger.__file__).parent
ORDER = (
    "asynchronous",
    "errors",
    "logs",
    "records",
    "config",
    "privacy",
    "latency",
    "token_formulas",
    "journal",
    "pricing",
    "tokens",
    "store",
    "shipping",
    "capture",
    "questions",
    "audit",
    "experiments",
    "charts",
    "integrations",
    "chat",
    "dashboard",
    "server",
    "testing",
    "cli",
    "django",
)
# `wrap()` hands a client to the integration that knows it, when it is called.
ALLOWED = {("capture", "integrations")}


def imports_of(path: Path) -> set[str]:
    """The parts of flowledger that a file imports from."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "flowledger":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("flowledger."):
            found.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("flowledger.")}
    return found & set(ORDER)


def part_of(path: Path) -> str:
    """The part a file belongs to; the Django application is a face like the command line."""
    parts = path.relative_to(SOURCE).parts
    return "django" if parts[:2] == ("integrations", "django") else parts[0].removesuffix(".py")


FILES = [path for path in sorted(SOURCE.rglob("*.py")) if part_of(path) in ORDER]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_part_imports_only_from_parts_before_it(path: Path) -> None:
    part = part_of(path)
    later = {one for one in imports_of(path) if ORDER.index(one) > ORDER.index(part)}
    assert set() == {one for one in later if (part, one) not in ALLOWED}


def test_every_part_has_its_place_in_the_order() -> None:
    parts = {part_of(path) for path in SOURCE.rglob("*.py")} - {"__init__", "__main__"}
    assert set() == parts - set(ORDER)


def test_importing_flowledger_loads_msgspec_and_the_standard_library_only() -> None:
    code = "import sys, flowledger; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = set(subprocess.check_output([sys.executable, "-c", code], text=True).split())
    third_party = {name for name in loaded if name not in sys.stdlib_module_names}
    assert {"flowledger", "msgspec"} == {n for n in third_party if not n.startswith("_")} - SITE


SITE = {"sitecustomize", "usercustomize", "distutils-precedence", "typing_extensions"}


def test_importing_the_store_loads_neither_sql_nor_mlflow() -> None:
    code = "import sys, flowledger.store; print({'sqlalchemy', 'mlflow'} & {*sys.modules})"
    assert "set()" == subprocess.check_output([sys.executable, "-c", code], text=True).strip()


def test_every_public_name_is_there() -> None:
    assert all(hasattr(flowledger, name) for name in flowledger.__all__)
