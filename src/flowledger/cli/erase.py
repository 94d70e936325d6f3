"""`flowledger erase`: a user's right to be forgotten, done and proven."""

import sys
from pathlib import Path

import click
import msgspec

from flowledger import config
from flowledger.cli.taking_out import asked, confirm, need_packages, os_user, progress, told
from flowledger.cli.text import print_json
from flowledger.config import Settings
from flowledger.shipping.collector import Collector, collector_lock

SHIP_SECONDS = 60.0


@click.command()
@click.option("--user", "user_id", required=True, metavar="ID", help="The user_id to erase.")
@asked("asked to be erased")
def command(
    user_id: str,
    by: str | None,
    reason: str,
    yes: bool,
    dry_run: bool,
    no_vacuum: bool,
    as_json: bool,
) -> None:
    """Take everything of a user out of the record, for good.

    Prompts, answers, tools, errors, files, chat turns, and what was noted about them are deleted
    from MLflow's tables and ours, and a made-up name stands for the user and their sessions: counts
    and costs stay. The chain says what was erased, when, why and by whom. Killed in the middle, the
    same command goes on. Backups, and the write-ahead log of PostgreSQL, are out of its reach.

    \b
    Examples:
      flowledger erase --user ana --dry-run
      flowledger erase --user ana --reason "request of 3 May" --yes
    """
    need_packages()
    from flowledger.audit.erasure import count, erase, sessions_of
    from flowledger.audit.files import of_user, remove_rejected, waiting

    settings = config.load()
    uri = settings.tracking_uri
    theirs = count(uri, user_id=user_id)
    waits = waiting(settings.journal_folder, of_user(user_id))
    if dry_run:
        _say(as_json, {"calls": theirs.calls, "jobs": theirs.jobs, "waiting": waits}, "would erase")
        return
    confirm(f"erase {theirs.calls:,} calls and {theirs.jobs:,} jobs of {user_id}", yes=yes)
    if waits:
        _ship(settings)
    turns = _forget(settings, sessions_of(uri, user_id))
    done = erase(
        uri, user_id, by=by or os_user(), reason=reason, vacuum=not no_vacuum, progress=progress
    )
    rejected = remove_rejected(settings.journal_folder, of_user(user_id))
    left = waiting(settings.journal_folder, of_user(user_id))
    if as_json:
        extra = {"turns": turns, "rejected": rejected, "waiting": left}
        print_json({**msgspec.structs.asdict(done), **extra})
    else:
        for line in told(done):
            click.echo(line)
        click.echo(f"{turns:,} chat turns and {rejected:,} rejected records are deleted")
        if left:
            click.echo(f"NOT erased: {left:,} records still wait in {settings.journal_folder}")
            click.echo("run `flowledger collect --once`, then this command again")
    sys.exit(1 if left or done.unreached else 0)


def _say(as_json: bool, counts: dict[str, int], what: str) -> None:
    if as_json:
        print_json(counts)
    else:
        click.echo(
            f"{what} {counts['calls']:,} calls and {counts['jobs']:,} jobs;"
            f" {counts['waiting']:,} records wait in this host's journals"
        )


def _ship(settings: Settings) -> None:
    """Have what waits stored first, so that it is erased with the rest."""
    folder = settings.journal_folder
    with collector_lock(folder) as ours:
        if ours():
            Collector(folder, settings.destination, settings.token).run_once(timeout=SHIP_SECONDS)


def _forget(settings: Settings, sessions: list[str]) -> int:
    """Delete a user's conversations from the chat store, where there is one."""
    store = settings.chat_store or f"sqlite:///{Path(settings.home, 'chat.db')}"
    path = Path(store.partition(":///")[2])
    if not sessions or (store.startswith("sqlite") and not path.is_file()):
        return 0
    from flowledger.chat import library

    kept = library.opened()
    turns = sum(kept.forget(session) for session in sessions)
    kept.close()
    if store.startswith("sqlite"):
        import sqlite3
        from contextlib import closing

        with closing(sqlite3.connect(path)) as connection:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return turns
