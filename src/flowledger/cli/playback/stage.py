"""What a replay needs besides its arrivals: somebody who answers, and a place to store."""

import importlib.util
import os
import queue
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flowledger
from flowledger import config
from flowledger.capture import recorder
from flowledger.capture.recorder import Recorder
from flowledger.cli.reading import open_ledger
from flowledger.config import Settings
from flowledger.errors import (
    ConfigError,
    FlowledgerError,
    JournalError,
    NotFound,
    StoreMisconfigured,
)

if TYPE_CHECKING:
    from flowledger.testing.llm import StubProcess

__all__ = ["is_new", "named_by", "open_recorder", "stub_server"]

NEEDED = ("openai", "uvicorn", "starlette", "splintr", "sqlalchemy", "mlflow")
START_SECONDS = 30.0
# An answer of the trace's median length, 129 tokens, takes some 60 ms.
LATENCY_MS = 20.0
MS_PER_TOKEN = 0.3


def named_by(environ: Mapping[str, str] = os.environ) -> str | None:
    """The variable that says where to store; None when the demo has a database of its own."""
    names = ("FLOWLEDGER_TRACKING_URI", config.ALIASES["tracking_uri"])
    return next((name for name in names if environ.get(name)), None)


def open_recorder() -> Recorder:
    """Settings for a replay, and recording begun: the collector starts making its tables now.

    Raises:
        ConfigError: recording is switched off, or a setting is wrong.
        StoreMisconfigured: packages are missing.
        JournalError: the home cannot be written.
    """
    _check_packages()
    settings = config.load()
    if not settings.enabled:
        off = [name for name in config.SWITCHES if os.environ.get(name)]
        raise ConfigError(f"recording is switched off: unset {off[0] if off else '`enabled`'}")
    if named_by() is None:
        flowledger.configure(**_own_database(Path(settings.home, "demo")))
    begun = recorder.active()
    if begun is None:
        raise ConfigError("recording cannot start: see `flowledger doctor`")
    return begun


def is_new(settings: Settings) -> bool:
    """Whether the demo stores in a database of its own that holds no call yet."""
    if named_by() is not None:
        return False
    try:
        with open_ledger(settings.tracking_uri) as ledger:
            return not ledger.size().records
    except NotFound:
        return True


@contextmanager
def stub_server() -> Iterator[str]:
    """The address of a stub server in a process of its own, which starts while openai loads.

    Raises:
        FlowledgerError: it did not start.
    """
    started: queue.SimpleQueue[StubProcess | FlowledgerError] = queue.SimpleQueue()
    threading.Thread(target=lambda: started.put(_started()), daemon=True).start()
    import openai  # noqa: F401 - both take a second, so let them take the same one

    try:
        stub = started.get(timeout=START_SECONDS)
    except queue.Empty:
        raise FlowledgerError(
            f"the stub LLM server did not start within {START_SECONDS:.0f} seconds: run "
            "`python -m flowledger.testing.llm` to see why"
        ) from None
    if isinstance(stub, FlowledgerError):
        raise stub
    with stub:
        yield stub.url


def _started() -> "StubProcess | FlowledgerError":
    # Ctrl-C goes to every process of the terminal: the stub must outlive the calls under way. It
    # inherits this thread's mask.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        from flowledger.testing.llm import StubLLM

        return StubLLM.process(latency_ms=LATENCY_MS, ms_per_token=MS_PER_TOKEN)
    except FlowledgerError as exc:
        return exc
    except Exception as exc:  # noqa: BLE001 - it is raised in the thread that waits
        return FlowledgerError(f"the stub LLM server did not start: {exc}")


def _check_packages() -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise StoreMisconfigured(
            f"this needs {', '.join(missing)}: pip install 'flowledger[server]'"
        )


def _own_database(folder: Path) -> dict[str, Any]:
    """Settings that keep a replay away from everybody else's database."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise JournalError(
            f"{folder} cannot be made ({exc.strerror}): set FLOWLEDGER_HOME to a folder you may "
            "write to"
        ) from exc
    own = {"tracking_uri": f"sqlite:///{folder / 'mlflow.db'}", "collector": "auto"}
    if not os.environ.get("FLOWLEDGER_ARTIFACT_ROOT"):
        own["artifact_root"] = str(folder / "mlruns")
    return own
