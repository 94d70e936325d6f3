"""The files that pages load: ours, and Vega's script, which the installed package makes."""

import gzip
import hashlib
import threading
from functools import cache
from importlib.metadata import version
from importlib.resources import files

import msgspec
import vl_convert

__all__ = ["Asset", "address_of", "load"]

OURS = {"ledger.css": "text/css", "ledger.js": "text/javascript", "logo.svg": "image/svg+xml"}
VEGA = "vega.js"
_making = threading.Lock()


class Asset(msgspec.Struct, frozen=True):
    """A file as it is sent: whole and compressed."""

    kind: str
    plain: bytes
    gzipped: bytes


@cache
def address_of(name: str) -> str:
    """Where a file is below the dashboard; another content has another address."""
    if name == VEGA:  # making it takes seconds, and its version tells it apart as well
        return f"static/{version('vl-convert-python')}/{name}"
    content = _file(name)
    return f"static/{hashlib.sha256(content).hexdigest()[:12]}/{name}"


def load(name: str) -> Asset | None:
    """A file by its name, None when there is no such one."""
    with _making:
        return _made(name) if name == VEGA or name in OURS else None


@cache
def _made(name: str) -> Asset:
    if name == VEGA:
        return _asset("text/javascript", vl_convert.javascript_bundle().encode())  # type: ignore[call-arg]
    return _asset(OURS[name], _file(name))


def _asset(kind: str, content: bytes) -> Asset:
    return Asset(f"{kind}; charset=utf-8", content, gzip.compress(content, mtime=0))


def _file(name: str) -> bytes:
    return (files("flowledger.dashboard") / "static" / name).read_bytes()
