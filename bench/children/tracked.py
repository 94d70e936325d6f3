"""An application with a tracked function that does nothing; journal on, nothing shipped."""

from pathlib import Path

import flowledger
from bench.children.timing import ANSWER, ATTRIBUTES, LIMITS, PROMPT, rounds
from bench.processes import argument, serve

OWN = ("feature", "operation", "kind", "provider", "model")
WHO = {name: value for name, value in ATTRIBUTES.items() if name not in OWN}


@flowledger.track(
    feature=ATTRIBUTES["feature"],
    operation=ATTRIBUTES["operation"],
    kind=ATTRIBUTES["kind"],
    provider=ATTRIBUTES["provider"],
    model=ATTRIBUTES["model"],
)
def ask(prompt: str, temperature: float, max_tokens: int) -> str:
    """What is tracked."""
    return ANSWER


def record_bytes(calls: int) -> float:
    """How long a record is, from the journals of the first so many calls."""
    home = Path(argument()["home"])
    return sum(path.stat().st_size for path in home.rglob("*.journal")) / calls


with flowledger.context(**WHO):
    timed = rounds(lambda: ask(PROMPT, **LIMITS), lambda: None)
    serve(timed=timed, record_bytes=record_bytes)
