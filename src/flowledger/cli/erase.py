"""`flowledger erase`: a user's right to be forgotten, done and proven."""

import sys

import click

from flowledger import config
from flowledger.cli.leftovers import forget_turns, ship
from flowledger.cli.taking_out import asked, confirm, need_packages, os_user, progress, tell
from flowledger.cli.text import print_json


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
    from flowledger.audit.erasure import count, erase, records_of, sessions_of
    from flowledger.audit.files import (
        of_user,
        overwrite_shipped,
        owners_of_rejected,
        remove_rejected,
        waiting,
    )

    settings = config.load()
    uri, folder = settings.tracking_uri, settings.journal_folder
    theirs = count(uri, user_id=user_id)
    waits = waiting(folder, of_user(user_id))
    if dry_run:
        _say(as_json, {"calls": theirs.calls, "jobs": theirs.jobs, "waiting": waits}, "would erase")
        return
    confirm(f"erase {theirs.calls:,} calls and {theirs.jobs:,} jobs of {user_id}", yes=yes)
    ship(settings, lambda: waiting(folder, of_user(user_id)))
    sessions = sessions_of(uri, user_id)
    turns = forget_turns(settings, lambda kept: sum(map(kept.forget, sessions)))
    # Before their records in the database, which say whose those are that name nobody.
    named, others = owners_of_rejected(folder, user_id)
    unwanted = of_user(user_id, named | records_of(uri, user_id, others))
    rejected = remove_rejected(folder, unwanted)
    done = erase(
        uri, user_id, by=by or os_user(), reason=reason, vacuum=not no_vacuum, progress=progress
    )
    overwrite_shipped(folder)
    left = waiting(folder, unwanted)
    tell(done, as_json, turns=turns, rejected=rejected, waiting=left)
    if left and not as_json:
        click.echo(f"NOT erased: {left:,} records still wait in {folder}")
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
