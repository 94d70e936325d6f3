"""A web application for `gunicorn --preload`: it records once when loaded, then at each request."""

from collections.abc import Callable, Iterable

import flowledger

flowledger.record(feature="faults", operation="loaded")


@flowledger.track(feature="faults")
def page(path: str) -> str:
    """What is asked for, answered."""
    return f"You asked for {path}\n"


def application(environ: dict[str, str], start_response: Callable[..., object]) -> Iterable[bytes]:
    """WSGI: one page for each request."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [page(environ["PATH_INFO"]).encode()]
