"""`flowledger collect`: the shipping loop, by hand or as a sidecar."""

import logging
import signal
import sys
from pathlib import Path

import click
import msgspec

from flowledger import config
from flowledger.cli.text import print_json
from flowledger.config import Destination
from flowledger.shipping.collector import (
    IDLE_SECONDS,
    Collector,
    collector_lock,
    destinations,
    detach,
)


@click.command()
@click.option("--once", is_flag=True, help="Empty every journal of this host, then leave.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="With --once: longest time per destination, in seconds.",
)
@click.option(
    "--drain",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="When told to stop: for how many seconds to ship what still waits.",
)
@click.option("--json", "as_json", is_flag=True, help="With --once: print JSON.")
@click.option("--detached", is_flag=True, hidden=True)
def command(once: bool, timeout: float, drain: float, as_json: bool, detached: bool) -> None:
    """Ship what waits in journals to the store.

    Applications start a collector by themselves when they need one; run this as a sidecar, or with
    --once before a host goes away. It stops on SIGTERM or Ctrl-C after the batch under way; with
    --drain after all that waits, which a sidecar needs whose journals go away with it.

    \b
    Examples:
      flowledger collect
      flowledger collect --drain 30
      flowledger collect --once --timeout 300
    """
    if detached:
        detach()
    settings = config.load()
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        level=settings.log_level or logging.INFO,
        force=True,
    )
    if once:
        emptied = [_once(*place, settings.token, timeout) for place in destinations(settings)]
        if as_json:
            print_json(emptied)
        else:
            for one in emptied:
                click.echo(f"{one.place}: {one.error or one.said}", err=bool(one.error))
        sys.exit(3 if any(one.error for one in emptied) else 0)
    _stay(settings, idle_seconds=IDLE_SECONDS if detached else None, drain=drain)


class _Emptied(msgspec.Struct, frozen=True):
    """What became of the journals of one destination; `error` says why something is left."""

    place: str
    said: str | None
    error: str | None = None


def _stay(settings: config.Settings, idle_seconds: float | None, drain: float) -> None:
    folder = settings.journal_folder
    with collector_lock(folder) as ours:
        if not ours():
            click.echo(f"another collector already serves {folder}", err=True)
            return
        collector = Collector(folder, settings.destination, settings.token)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, collector.stop)
        collector.run(ours, idle_seconds=idle_seconds)
        if drain:
            last = Collector(folder, settings.destination, settings.token)
            if error := last.run_once(timeout=drain):
                click.echo(f"{folder} is not empty: {error}", err=True)
                sys.exit(3)


def _once(folder: Path, destination: Destination, token: str, timeout: float) -> _Emptied:
    """Empty one folder."""
    place = destination.redacted().tracking_uri
    with collector_lock(folder) as ours:
        if not ours():
            return _Emptied(place, "a collector already ships this")
        error = Collector(folder, destination, token).run_once(timeout=timeout)
    return _Emptied(place, None if error else "every journal is shipped", error)
