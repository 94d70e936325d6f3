"""One replay from curtain to curtain: prepare, play, store, and say what is stored."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

import flowledger
from flowledger.cli.playback import stage
from flowledger.cli.playback.arrivals import arrivals_in
from flowledger.cli.playback.progress import progress
from flowledger.cli.reading import open_ledger
from flowledger.cli.text import print_json
from flowledger.config import Settings, without_password
from flowledger.errors import FlowledgerError, NotFound
from flowledger.shipping.loop import read_status

if TYPE_CHECKING:
    from flowledger.capture.recorder import Recorder

__all__ = ["Plan", "perform"]

INTERRUPTED = 130
STORE_SECONDS = 120.0
HURRIED_STORE_SECONDS = 15.0
LATE_SECONDS = 5.0
OPENAI = "https://api.openai.com/v1"
DATABASES = ("sqlite", "postgresql")
AT_STUB = "a stub server on this machine, through the real openai client: nothing is paid"
Tell = Callable[[int], None]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to play.

    `trace` says in words what the arrivals are. `total` is None when the file is too large to
    count. `model` is a real one to ask for everything; None means the stub server. `hint` is said
    beside who answers. `served` says that a server shows the calls afterwards. `history_days` are
    filled with calls before; None means the default, in a new database of the demo's own.
    `as_json` prints what is stored as JSON, and tells the rest on standard error.
    """

    path: Path
    trace: str
    total: int | None
    limit: int | None
    speed: float
    concurrency: int
    model: str | None
    hint: str = ""
    served: bool = False
    history_days: int | None = 0
    default_history_days: int = 0
    as_json: bool = False

    def say(self, line: str) -> None:
        """Tell people how it goes."""
        click.echo(line, err=self.as_json)


def perform(plan: Plan) -> int:
    """Play the plan; returns the exit code: 0 all stored, 1 not all, 130 interrupted."""
    made = before = 0

    def tell(answers: int) -> None:
        nonlocal made
        made = before + answers

    hurried = msgspec.structs.replace(plan, served=False)
    recorder = stage.open_recorder()
    try:
        _announce(plan, recorder.settings)
        made = before = _write_history(plan, recorder.settings)
        _play(plan, tell)
        return 0 if _store(plan, recorder, made, STORE_SECONDS) else 1
    except KeyboardInterrupt:
        plan.say(f"\nInterrupted after {made:,} calls.")
        _store(hurried, recorder, made, HURRIED_STORE_SECONDS)
        return INTERRUPTED
    except FlowledgerError:
        if made:
            _store(
                msgspec.structs.replace(plan, served=False), recorder, made, HURRIED_STORE_SECONDS
            )
        raise


def _announce(plan: Plan, settings: Settings) -> None:
    speed = f"{plan.speed:g} times as fast" if plan.speed else "as fast as answers come"
    for label, value in (
        ("arrivals", f"{plan.trace}, {speed}"),
        ("answered by", AT_STUB if plan.model is None else _real(plan.model)),
        ("", plan.hint),
        ("stored in", without_password(settings.tracking_uri)),
    ):
        if value:
            plan.say(f"{label:<13}{value}")
    plan.say("")


def _write_history(plan: Plan, settings: Settings) -> int:
    days = plan.history_days
    if days is None:
        days = plan.default_history_days if stage.is_new(settings) else 0
    if not days:
        return 0
    from flowledger.cli.playback.history import write_history

    began = time.monotonic()
    calls = write_history(plan.path, days)
    took = time.monotonic() - began
    plan.say(
        f"{calls:,} calls of the {days} days before written down in {took:.1f} s: the same "
        "arrivals, as if they had happened, so that there is something to see."
    )
    return calls


def _real(model: str) -> str:
    place = without_password(os.environ.get("OPENAI_BASE_URL") or OPENAI)
    return f"{model} at {place}: OPENAI_API_KEY is set and pays for these short calls"


def _play(plan: Plan, tell: Tell) -> None:
    with _address(plan) as address:
        # openai takes a second to load, and the stub server starts meanwhile.
        from flowledger.cli.playback.application import Application, client_for
        from flowledger.cli.playback.pace import Player

        application = Application(client_for(address), plan.model)
        player = Player(application, plan.speed, plan.concurrency)
        began = time.monotonic()
        with nullcontext(_silent) if plan.as_json else progress(plan.total) as show:
            player.play(arrivals_in(plan.path, plan.limit), _both(tell, show))
    took = time.monotonic() - began
    plan.say(f"{player.made:,} calls made in {took:.1f} s.")
    if player.late > LATE_SECONDS:
        plan.say(f"The arrivals fell up to {player.late:.0f} s behind: this is too fast for here.")


def _silent(answers: int) -> None:
    pass


def _both(first: Tell, second: Tell) -> Tell:
    def tell(answers: int) -> None:
        first(answers)
        second(answers)

    return tell


@contextmanager
def _address(plan: Plan) -> Iterator[str | None]:
    """Where the client finds who answers; None is what the environment says."""
    if plan.model is not None:
        yield None
        return
    with stage.stub_server() as address:
        yield address


def _store(plan: Plan, recorder: "Recorder", made: int, patience: float) -> bool:
    """Wait for the store and print what it holds; whether it has every call made."""
    began = time.monotonic()
    flushed = flowledger.flush(patience)
    waited = time.monotonic() - began
    if not flushed:
        _say_what_waits(recorder.settings, waited)
    if recorder.settings.tracking_uri.partition(":")[0].partition("+")[0] not in DATABASES:
        place = without_password(recorder.settings.tracking_uri)
        plan.say(f"The calls are in {place}: look at them there. It is no database to ask.")
        if plan.as_json:
            print_json({"made": made, "stored": None, "place": place})
        return flushed
    try:
        return _print_stored(plan, recorder, made, waited) and flushed
    except NotFound:
        plan.say("Nothing is stored.")
        if made and flushed:
            plan.say("The calls were taken, though: was the database deleted under a collector?")
        if plan.as_json:
            place = without_password(recorder.settings.tracking_uri)
            print_json({"made": made, "stored": 0, "place": place})
        return made == 0


def _print_stored(plan: Plan, recorder: "Recorder", made: int, waited: float) -> bool:
    from flowledger.cli.playback.outcome import numbers, print_numbers, print_ways_to_look

    with open_ledger(recorder.settings.tracking_uri) as ledger:
        stored = ledger.calls_of_process(recorder.producer_id)
        which = "All" if stored >= made else f"{stored:,}"
        plan.say(f"{which} of them are stored, {waited:.1f} s after the last one.\n")
        if plan.as_json:
            print_json({"made": made, "stored": stored, "place": ledger.place, **numbers(ledger)})
        elif ledger.size().records:
            print_numbers(ledger, stored)
            print_ways_to_look(ledger, recorder.settings, plan.served)
    return stored >= made


def _say_what_waits(settings: Settings, waited: float) -> None:
    status = read_status(settings.journal_folder)
    why = status.error if status is not None and status.error else "it is slower than that"
    click.echo(f"After {waited:.0f} s the store has not taken everything: {why}", err=True)
    click.echo("What waits is shipped later; `flowledger doctor` says more.", err=True)
