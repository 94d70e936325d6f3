"""What is checked before a server is started: each thing that is wrong has its sentence."""

import ipaddress
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import sqlalchemy as sa

from flowledger.config import without_password
from flowledger.errors import ConfigError, StoreMisconfigured

__all__ = ["check"]

PACKAGES = ("mlflow", "fastapi", "uvicorn", "prometheus_client")


class Options(Protocol):
    """The options of a launch that are checked."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def backend_store_uri(self) -> str: ...
    @property
    def artifacts_destination(self) -> str: ...
    @property
    def auth(self) -> str: ...
    @property
    def allow_unauthenticated(self) -> bool: ...


def check(options: Options) -> None:
    """Refuse what cannot work.

    Raises:
        ConfigError: an option cannot be used.
        StoreMisconfigured: a package is missing.
    """
    _check_packages(options)
    _check_database(options.backend_store_uri)
    _check_artifacts(options.artifacts_destination)
    _check_exposure(options)
    _check_port(options.host, options.port)


def _check_packages(options: Options) -> None:
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise StoreMisconfigured(
            f"{', '.join(missing)} is not installed: pip install 'flowledger[server]'"
        )
    if options.auth and find_spec("flask_wtf") is None:
        raise StoreMisconfigured(
            "MLflow's users need Flask-WTF: pip install 'mlflow[auth]', or leave --auth out"
        )


def _check_database(uri: str) -> None:
    kind = uri.partition(":")[0].partition("+")[0]
    if kind not in ("sqlite", "postgresql"):
        raise ConfigError(
            f"--backend-store-uri {without_password(uri)}: a flowledger server keeps calls in a "
            "database, so give sqlite:///file.db or postgresql://user@host/name"
        )
    try:
        path = sa.make_url(uri).database or ""
    except (sa.exc.ArgumentError, ValueError) as exc:
        raise ConfigError(f"--backend-store-uri cannot be read: {exc}") from exc
    if kind == "sqlite":
        _check_file(path)
    elif find_spec("psycopg") is None:
        raise StoreMisconfigured("psycopg is not installed: pip install 'flowledger[postgres]'")


def _check_file(path: str) -> None:
    if path in ("", ":memory:"):
        raise ConfigError(
            "a database in memory is gone with each process: name a file, as in sqlite:///mlflow.db"
        )
    folder = Path(path).absolute().parent
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder} for the database: make it, or name another")


def _check_artifacts(destination: str) -> None:
    parts = urlsplit(destination)
    if parts.scheme not in ("", "file"):
        return
    folder = Path(parts.path).absolute()
    if not folder.is_dir() and not folder.parent.is_dir():
        raise ConfigError(
            f"there is no folder {folder.parent} for artifacts: make it, or give another with "
            "--artifacts-destination"
        )


def _check_exposure(options: Options) -> None:
    if options.auth or options.allow_unauthenticated or _is_loopback(options.host):
        return
    raise ConfigError(
        f"on {options.host} anybody in reach could read every prompt: add --auth basic, or "
        "--allow-unauthenticated when something in front of the server asks who comes"
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _check_port(host: str, port: int) -> None:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, UnicodeError) as exc:
        raise ConfigError(
            f"cannot listen on port {port} of {host} ({_words(exc)}): stop what uses it, or choose "
            "others with --port and --host"
        ) from exc


def _words(exc: Exception) -> str:
    return getattr(exc, "strerror", None) or str(exc)
