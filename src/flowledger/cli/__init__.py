"""The command line: each command parses, calls one function of flowledger, and prints.

Exit codes: 0 done, 1 the answer is bad news (a check failed, nothing found), 2 wrong usage or
settings, 3 a store or journal that cannot be used.
"""

import importlib
import logging
import sys
from typing import Any

import click

from flowledger.errors import ConfigError, FlowledgerError, NotFound, QuestionError

__all__ = ["main"]

COMMANDS = {
    "backup": "Copy a database to a file, while it is in use.",
    "collect": "Ship what waits in journals to the store.",
    "compare": "Compare models side by side, and say how sure the differences are.",
    "demo": "See it work: a small application, its calls, and what the ledger says.",
    "docs": "Add, list, search and remove the documents that chat answers from.",
    "doctor": "Say what is configured, what waits, what was rejected, and what to do.",
    "erase": "Take everything of a user out of the record, for good.",
    "evidence": "Check that the record is complete, prove it untouched, export it signed.",
    "export": "Write every call of a window as JSON lines, CSV or Parquet.",
    "keys": "Make, list and revoke keys, and the key that signs evidence.",
    "migrate": "Bring the tables of a database forward or back.",
    "purge": "Take old content out of the record, for good.",
    "recent": "List the latest calls.",
    "replay": "Replay a trace of LLM arrivals through a real client.",
    "report": "Write a report with charts as HTML, PDF, Markdown or JSON.",
    "restore": "Put a backup into an empty database, and check it.",
    "run": "Run a program and record the calls of its LLM clients.",
    "server": "Run the server: MLflow's pages and API, ingest, /metrics, on one port.",
    "show": "Show everything recorded about one call.",
    "stats": "Add up calls by model, feature, user or day, with bars.",
    "version": "Print the version.",
}


class _Lazy(click.Group):
    """Loads a command's module only when that command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"flowledger.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FlowledgerError as exc:
            click.echo(f"flowledger: {exc}", err=True)
            sys.exit(_exit_code(exc))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """The record of every LLM call an application makes, kept on MLflow.

    \b
    Examples:
      flowledger demo
      flowledger recent -n 20
      flowledger doctor
    """
    logging.basicConfig(format="%(name)s: %(message)s", level=logging.WARNING)


def _exit_code(exc: FlowledgerError) -> int:
    return (
        2 if isinstance(exc, ConfigError | QuestionError) else 1 if isinstance(exc, NotFound) else 3
    )
