"""`flowledger collect`: the shipping loop, by hand or as a sidecar."""

import logging
import signal
import sys
from pathlib import Path

import click

from flowledger import config
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
@click.option("--detached", is_flag=True, hidden=True)
def command(once: bool, timeout: float, drain: float, detached: bool) -> None:
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
        failures = [_once(*place, settings.token, timeout) for place in destinations(settings)]
        sys.exit(3 if any(failures) else 0)
    _stay(settings, idle_seconds=IDLE_SECONDS if detached else None, drain=drain)


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


def _once(folder: Path, destination: Destination, token: str, timeout: float) -> bool:
    """Empty one folder; whether something is left."""
    with collector_lock(folder) as ours:
        if not ours():
            click.echo(f"{destination.redacted().tracking_uri}: a collector already ships this")
            return False
        error = Collector(folder, destination, token).run_once(timeout=timeout)
    uri = destination.redacted().tracking_uri
    click.echo(f"{uri}: {error or 'every journal is shipped'}", err=bool(error))
    return error is not None
