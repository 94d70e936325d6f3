"""What `flowledger doctor` finds out: facts first, then what needs doing about them."""

import fcntl
import importlib.metadata
import importlib.util
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

import flowledger
from flowledger import config
from flowledger.cli.store_check import StoreState, look_at_store
from flowledger.cli.text import size
from flowledger.config import Settings
from flowledger.errors import ConfigError, JournalError
from flowledger.journal import check_flock
from flowledger.shipping.waiting import JournalState, look_at_journals

__all__ = ["Problem", "Report", "Setting", "examine", "waiting"]

SHOWN = (
    "tracking_uri",
    "home",
    "experiment",
    "environment",
    "store_as",
    "collector",
    "durability",
    "journal_max_bytes",
    "max_content_bytes",
)
WRITING = ("mlflow", "sqlalchemy", "genai_prices", "splintr")
PYTHON_SECONDS = 5
NEARLY_FULL = 0.8


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Something that needs doing: what is wrong, and what to do."""

    what: str
    do: str


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """A setting in force, and what set it."""

    name: str
    value: str | int
    source: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the doctor says; `store` is None when the settings cannot be read."""

    version: str
    recording: str
    settings: list[Setting] = msgspec.field(default_factory=list)
    missing_packages: list[str] = msgspec.field(default_factory=list)
    store: StoreState | None = None
    journals: list[JournalState] = msgspec.field(default_factory=list)
    problems: list[Problem] = msgspec.field(default_factory=list)


def examine(environ: Mapping[str, str] = os.environ) -> Report:
    """Look at settings, packages, store and journals, within seconds, and change nothing."""
    try:
        settings = config.load(environ)
    except ConfigError as exc:
        wrong = Problem(
            what=f"a setting is wrong: {exc}", do="put it right; until then no call is kept"
        )
        return Report(
            version=flowledger.__version__, recording="off: a setting is wrong", problems=[wrong]
        )
    missing = _missing_packages(settings)
    store = look_at_store(settings)
    journals = look_at_journals(settings)
    return Report(
        version=flowledger.__version__,
        recording=_recording(settings, environ),
        settings=[_setting(settings, name, environ) for name in SHOWN],
        missing_packages=missing,
        store=store,
        journals=journals,
        problems=[
            *_package_problems(missing, settings),
            *_home_problems(settings),
            *_store_problems(store),
            *(problem for journal in journals for problem in _journal_problems(journal, settings)),
        ],
    )


def _recording(settings: Settings, environ: Mapping[str, str]) -> str:
    off = [n for n in config.SWITCHES if environ.get(n, "").strip().lower() in config.OFF]
    if off:
        return f"off, switched off by {off[0]}={environ[off[0]]}"
    return "on" if settings.enabled else "off, switched off by `enabled` in flowledger.yaml"


def _setting(settings: Settings, name: str, environ: Mapping[str, str]) -> Setting:
    value = getattr(settings, name)
    shown = config.without_password(value) if name == "tracking_uri" else value
    return Setting(name=name, value="" if shown is None else shown, source=_source(name, environ))


def _source(name: str, environ: Mapping[str, str]) -> str:
    variables = [f"FLOWLEDGER_{name.upper()}", config.ALIASES.get(name, "")]
    if name == "experiment":
        variables.append("MLFLOW_EXPERIMENT_NAME")
    file = Path(environ.get("FLOWLEDGER_CONFIG") or "flowledger.yaml")
    for variable in filter(environ.get, filter(None, variables)):
        return variable
    return str(file) if file.is_file() and f"{name}:" in file.read_text("utf-8") else "default"


def _missing_packages(settings: Settings) -> list[str]:
    """What the collector will need and its Python does not have."""
    scheme = settings.tracking_uri.partition(":")[0]
    needed = [*WRITING, *(["psycopg"] if scheme == "postgresql" else [])]
    if scheme in ("http", "https"):
        return []  # a flowledger server needs nothing here; the store's own check tells the rest
    if settings.collector_python:
        return _missing_in(settings.collector_python, needed)
    return [name for name in needed if importlib.util.find_spec(name) is None]


def _missing_in(python: str, needed: list[str]) -> list[str]:
    code = (
        "import sys, importlib.util as u;"
        "print(*(n for n in sys.argv[1:] if u.find_spec(n) is None))"
    )
    try:
        ran = subprocess.run(
            [python, "-c", code, *needed], capture_output=True, text=True, timeout=PYTHON_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return needed
    return ran.stdout.split() if ran.returncode == 0 else needed


def _package_problems(missing: list[str], settings: Settings) -> Iterator[Problem]:
    if missing:
        python = settings.collector_python or "this Python"
        extras = "server,postgres" if "psycopg" in missing else "server"
        yield Problem(
            what=f"{python} lacks {', '.join(missing)}, which writing to the store needs",
            do=f"pip install 'flowledger[{extras}]', or set FLOWLEDGER_COLLECTOR_PYTHON to an "
            "interpreter that has it, or send calls to a flowledger server",
        )


def _home_problems(settings: Settings) -> Iterator[Problem]:
    folder = Path(settings.home)
    there = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=there) as probe:
            fcntl.flock(probe, fcntl.LOCK_EX)
            check_flock(Path(probe.name))
    except JournalError as exc:
        yield Problem(what=f"calls are not kept: {exc}", do="do what it says, and start again")
    except OSError as exc:
        yield Problem(
            what=f"journals cannot be written in {folder}: {exc.strerror or exc}",
            do="set FLOWLEDGER_HOME to a folder you may write to, or make room on its disk",
        )


def _store_problems(store: StoreState) -> Iterator[Problem]:
    if store.error is not None:
        yield Problem(
            what=store.error,
            do="calls wait in the journal meanwhile; start the store, or put MLFLOW_TRACKING_URI "
            "right",
        )
    if store.unsupported is not None:
        what, _, do = store.unsupported.partition(". ")
        yield Problem(what=what, do=do)
    if store.months_ahead is not None and store.months_ahead < 1:
        yield Problem(
            what="calls are kept by month, and the next month is not made: its calls will be stored"
            " with those of no month, from where they are moved later",
            do="run `flowledger migrate` as the owner of the tables, from cron once a month where "
            "servers may not change tables",
        )


def waiting(journal: JournalState) -> str:
    """What waits in a journal, in words."""
    least = "" if journal.counted else "at least "
    return f"{least}{journal.waiting_records:,} records ({size(journal.waiting_bytes)})"


def _journal_problems(journal: JournalState, settings: Settings) -> Iterator[Problem]:
    if journal.unreadable:
        yield Problem(
            what=journal.unreadable,
            do=f"look at {journal.folder}, whose journals are not shipped meanwhile",
        )
    if journal.waiting_bytes and journal.error:
        yield Problem(
            what=f"{waiting(journal)} wait for {journal.place}, which did not take them: "
            f"{journal.error}",
            do="put right what it says; they are shipped by themselves then, or at once by "
            "`flowledger collect --once`",
        )
    elif journal.waiting_bytes and not journal.collector_runs:
        yield Problem(
            what=f"{waiting(journal)} wait for {journal.place}, and no collector runs",
            do="run `flowledger collect --once`, or start the application again",
        )
    if journal.waiting_bytes > NEARLY_FULL * settings.journal_max_bytes:
        yield Problem(
            what=f"the journals in {journal.folder} are nearly full: calls will be dropped",
            do="get them shipped, or raise FLOWLEDGER_JOURNAL_MAX_BYTES",
        )
    if journal.dropped:
        yield Problem(
            what=f"{journal.dropped} records had no room in {journal.folder} and are lost",
            do="raise FLOWLEDGER_JOURNAL_MAX_BYTES or free space on its disk; the ledger lists "
            "them as a gap",
        )
    if journal.rejected:
        yield Problem(
            what=f"{journal.rejected} records were rejected: {'; '.join(journal.rejected_reasons)}",
            do=f"read {journal.rejected_folder}; delete it once nothing in it is wanted",
        )
