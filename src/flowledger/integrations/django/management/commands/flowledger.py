"""`manage.py flowledger ...`: the command line of flowledger, over the database of the settings."""

import argparse
import os
from typing import Any

import click
from django.core.management.base import BaseCommand, CommandError, CommandParser

from flowledger.cli import main
from flowledger.integrations.django import conf

__all__ = ["Command"]


class Command(BaseCommand):  # type: ignore[misc]
    """Runs any command of flowledger: `manage.py flowledger recent -n 5`."""

    help = "Run a command of flowledger, for example: recent, show, doctor."

    def add_arguments(self, parser: CommandParser) -> None:
        """Everything after the name is flowledger's own."""
        parser.add_argument("arguments", nargs=argparse.REMAINDER)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run it.

        Raises:
            CommandError: there is no such command, or it takes no such arguments.
        """
        os.environ["FLOWLEDGER_TRACKING_URI"] = conf.ledger_uri()
        given = [str(argument) for argument in options["arguments"]]
        try:
            main.main(given or ["--help"], "manage.py flowledger", standalone_mode=False)
        except click.ClickException as exc:
            raise CommandError(exc.format_message(), returncode=exc.exit_code) from exc
        except SystemExit as exc:
            if exc.code:  # Django's own caller goes on where all is well
                raise
