"""Runs when Python starts under `flowledger run`, in the program and in its child processes.

Nothing of flowledger is imported before a package is that we record. The program's own
`sitecustomize`, which this one hides, runs after it, and `sys.path` is what it would be.
"""

import functools
import importlib
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

# A package, and who is called whenever it was imported; being called again must be harmless.
INSTRUMENTS = {
    "anthropic": "flowledger.integrations.clients:anthropic",
    "dspy": "flowledger.integrations.dspy:instrument",
    "openai": "flowledger.integrations.clients:openai",
}


class _Finder:
    """Finds nothing itself: has the loader of a package say when the package is there."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The package's own spec, its loader listened to; None for all others."""
        if name not in INSTRUMENTS:
            return None
        spec = _found_by_others(name, path, target)
        with suppress(AttributeError):  # no loader, or one that cannot be listened to
            _after(spec.loader, "exec_module", functools.partial(_instrument, name))  # type: ignore[union-attr]
        return spec


def _found_by_others(name: str, path: Any, target: Any) -> ModuleSpec | None:
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        spec: ModuleSpec | None = (
            find(name, path, target) if find and finder is not _Finder else None
        )
        if spec is not None:
            return spec
    return None


def _after(owner: Any, name: str, then: Callable[[], None]) -> None:
    """Call `then` after the next call of the owner's method."""
    method = getattr(owner, name)

    def replaced(module: ModuleType) -> None:
        delattr(owner, name)
        method(module)
        then()

    setattr(owner, name, replaced)


def _instrument(package: str) -> None:
    module, _, name = INSTRUMENTS[package].partition(":")
    try:
        getattr(importlib.import_module(module), name)()
    except Exception as exc:  # noqa: BLE001 - no fault of ours may reach the application
        import logging  # every Python that starts would pay for it

        from flowledger.asynchronous import reraise_asynchronous

        reraise_asynchronous(exc)
        logging.getLogger("flowledger").warning("%s is not recorded: %r", package, exc)


def _run_the_programs_own() -> None:
    spec = PathFinder.find_spec("sitecustomize", sys.path)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


# Only as Python's own hook: whoever imports this file by its long name does not want it.
if __name__ == "sitecustomize":
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != here]
    sys.meta_path.insert(0, _Finder)
    _run_the_programs_own()
