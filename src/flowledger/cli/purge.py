"""`flowledger purge`: retention, for cron."""

import sys
import time

import click

from flowledger import config
from flowledger.cli.leftovers import forget_turns
from flowledger.cli.taking_out import asked, confirm, need_packages, os_user, progress, tell
from flowledger.cli.text import moment, print_json
from flowledger.errors import ConfigError


@click.command()
@click.option("--older-than", required=True, metavar="AGE", help="Such as 180d, 24h.")
@click.option("--everything", is_flag=True, help="Delete the calls themselves, and their counts.")
@asked("retention")
def command(
    older_than: str,
    everything: bool,
    by: str | None,
    reason: str,
    yes: bool,
    dry_run: bool,
    no_vacuum: bool,
    as_json: bool,
) -> None:
    """Take old content out of the record, for good.

    Prompts, answers, tools, errors and files of calls that began before are deleted from MLflow's
    tables and ours, and so are chat turns and what was rejected on this host; who, why, which
    model, tokens and costs stay. With --everything the calls themselves go too, from every sum as
    well; jobs around them stay, without their content. The chain says what was purged. Killed in
    the middle, the same command goes on.

    \b
    Examples:
      flowledger purge --older-than 180d --dry-run
      flowledger purge --older-than 180d --yes
      flowledger purge --older-than 1000d --everything --yes
    """
    need_packages()
    from flowledger.audit.erasure import count, purge
    from flowledger.audit.files import began_before, overwrite_shipped, remove_rejected
    from flowledger.audit.policy import seconds_of

    age = seconds_of(older_than, "--older-than")
    if age == 0:
        raise ConfigError("--older-than must be more than 0")
    settings = config.load()
    uri = settings.tracking_uri
    before_ms = time.time_ns() // 1_000_000 - age * 1000
    there = count(uri, before_ms=before_ms, everything=everything)
    what = "whole calls" if everything else "the content of calls"
    when = f"from before {moment(before_ms)} UTC"
    if dry_run:
        if as_json:
            print_json({"calls": there.calls, "jobs": there.jobs, "before_ms": before_ms})
        else:
            click.echo(f"would purge {what} {when}: {there.calls:,} calls, {there.jobs:,} jobs")
        return
    confirm(f"purge {what} {when}: {there.calls:,} calls and {there.jobs:,} jobs", yes=yes)
    turns = forget_turns(settings, lambda kept: kept.forget_before(before_ms))
    rejected = remove_rejected(settings.journal_folder, began_before(before_ms))
    done = purge(
        uri,
        before_ms,
        by=by or os_user(),
        reason=reason,
        everything=everything,
        vacuum=not no_vacuum,
        progress=progress,
    )
    overwrite_shipped(settings.journal_folder)
    tell(done, as_json, turns=turns, rejected=rejected)
    sys.exit(1 if done.unreached else 0)
