"""`flowledger evidence`: whether the record is complete, and whether it is as it was stored."""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from flowledger import config
from flowledger.cli.text import moment, on_terminal, print_json, printable
from flowledger.errors import StoreMisconfigured

if TYPE_CHECKING:
    from flowledger.audit.bundle import Checked
    from flowledger.audit.evidence import Evidence
    from flowledger.audit.file_proof import FilesProof
    from flowledger.audit.log_state import Event
    from flowledger.audit.proof import Proof
    from flowledger.audit.shortfalls import Shortfall

SHOWN = 10
ALLOWABLE = ("correction", "removal", "erasure", "purge", "beginning")
DAY = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])


@click.group()
def command() -> None:
    """Check that the record is complete, prove that it is untouched, export it signed.

    \b
    Examples:
      flowledger evidence check
      flowledger evidence verify
      flowledger evidence export --from 2026-01-01 --to 2026-04-01 --file q1.jsonl
      flowledger evidence verify q1.jsonl
    """


@command.command("check")
@click.option("--from", "first", type=DAY, help="Calls from this day (UTC) on.")
@click.option("--to", "last", type=DAY, help="Calls before this day (UTC).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with everything that was found.")
def check_(first: datetime | None, last: datetime | None, as_json: bool) -> None:
    """List what evidence lacks, by user, feature and day.

    Exit code 0 when the policy in flowledger.yaml holds, 1 when it does not. All calls are looked
    at, unless --from or --to say otherwise.
    """
    _need_packages()
    from flowledger.audit.evidence import check
    from flowledger.audit.policy import policy_of

    settings = config.load()
    policy = policy_of(settings)
    found = check(settings, policy, first_ms=_ms(first) or 0, end_ms=_ms(last))
    if as_json:
        print_json(found)
    else:
        for line in _checked(found):
            click.echo(printable(line))
    sys.exit(0 if found.holds else 1)


@command.command("verify")
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--head", metavar="HASH", help="A hash that verify printed before: is it still there?"
)
@click.option(
    "--allow",
    multiple=True,
    type=click.Choice(ALLOWABLE),
    help="With --head: events of this kind may follow it. `beginning`: the log may have begun when "
    "calls were stored already. Repeat for more kinds.",
)
@click.option("--key", metavar="KEY", help="With FILE: the public key that must have signed it.")
@click.option(
    "--strict", is_flag=True, help="Rows that people added in MLflow are differences, too."
)
@click.option("--files", is_flag=True, help="Read uploaded files again and compare them, too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify_(
    file: Path | None,
    head: str | None,
    allow: tuple[str, ...],
    key: str | None,
    strict: bool,
    files: bool,
    as_json: bool,
) -> None:
    """Recompute the evidence log and compare every row with it, or check an exported FILE.

    Exit code 0 when everything is as it was stored, 1 when something is not. Keep the hash it
    prints somewhere else and give it as --head the next time: then nothing was cut off, and
    corrections, removals, erasures and purges since then fail unless --allow names their kind.
    """
    _need_packages()
    if file is not None:
        _verify_file(file, key, head, allow, as_json)
        return
    if key:
        raise click.UsageError("--key goes with a FILE: the database itself is not signed")
    from flowledger.audit.proof import verify

    uri = config.load().tracking_uri
    proof = verify(uri, head, progress=_progress, allow=allow)
    read = _read_again(uri) if files else None
    fine = proof.intact and not (strict and (proof.added_by_others or proof.archived_not_proven))
    if as_json:
        print_json(proof if read is None else {**msgspec.structs.asdict(proof), "files": read})
    else:
        for line in (*(() if read is None else _files_proven(read)), *_proven(proof, strict)):
            click.echo(printable(line))
    sys.exit(0 if fine and (read is None or read.intact) else 1)


@command.command("export")
@click.option("--from", "first", type=DAY, required=True, help="Calls from this day (UTC) on.")
@click.option("--to", "last", type=DAY, required=True, help="Calls before this day (UTC).")
@click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="Where to write it; a file that is there is not overwritten.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def export_(first: datetime, last: datetime, file: Path, as_json: bool) -> None:
    """Write a signed file that proves itself without the database.

    Signed with the key that `flowledger keys signing` made.
    """
    _need_packages()
    from flowledger.audit.bundle import export

    settings = config.load()
    manifest = export(settings, _ms(first) or 0, _ms(last) or 0, file)
    if as_json:
        print_json(manifest)
        return
    click.echo(f"{file}: {manifest.calls:,} calls, {manifest.links:,} links of the chain")
    click.echo(f"head {manifest.head}")
    click.echo(f"signed by {manifest.public_key}")


def _verify_file(
    file: Path, key: str | None, head: str | None, allow: tuple[str, ...], as_json: bool
) -> None:
    from flowledger.audit.bundle import verify_file

    checked = verify_file(file, key=key, head=head, allow=allow)
    if as_json:
        print_json(checked)
    else:
        for line in _file_lines(checked):
            click.echo(printable(line))
    sys.exit(0 if checked.intact else 1)


def _file_lines(checked: "Checked") -> Iterator[str]:
    for problem in checked.problems:
        yield f"NOT INTACT: {problem}"
    if unallowed := sum(not event.allowed for event in checked.events):
        yield f"NOT INTACT: {unallowed:,} events since the head, listed below"
    if checked.intact:
        yield f"intact: {checked.calls:,} calls and {checked.links:,} links are as they were signed"
    yield from _events(checked.events)
    if checked.head:
        yield f"head {checked.head}"
    if checked.public_key:
        yield f"signed by {checked.public_key}" + (
            "" if checked.pinned else "  (not compared: --key)"
        )


def _checked(found: "Evidence") -> Iterator[str]:
    verdict = "the policy holds" if found.holds else "the policy does NOT hold"
    yield f"{found.calls:,} calls: {verdict}"
    if found.first_ms is not None and found.newest_ms is not None:
        yield f"from {moment(found.first_ms)} to {moment(found.newest_ms)} UTC"
    for short in found.shortfalls:
        yield from ("", *_shortfall(short))
    if not found.shortfalls:
        yield "Nothing is short."


def _shortfall(short: "Shortfall") -> Iterator[str]:
    mark = "allowed" if short.allowed else "FAILS"
    yield f"{short.count:,}  {short.what}  ({short.kind}, {mark})"
    for name, counts in (
        ("feature", short.by_feature),
        ("user", short.by_user),
        ("source", short.by_source),
        ("day", short.by_day),
    ):
        if counts:
            shown = [
                f"{value or '(none)'} {count:,}" for value, count in list(counts.items())[:SHOWN]
            ]
            more = f", and {len(counts) - SHOWN:,} more" if len(counts) > SHOWN else ""
            yield f"    by {name}: {', '.join(shown)}{more}"
    for example in short.examples:
        yield f"    e.g. {example}"


def _proven(proof: "Proof", strict: bool) -> Iterator[str]:
    if proof.intact:
        yield f"intact: {proof.calls:,} calls are as they were stored ({proof.links:,} links)"
    elif proof.different or proof.anchored is False:
        yield f"NOT INTACT: {proof.different:,} differences in {proof.calls:,} calls"
    if unallowed := sum(not event.allowed for event in proof.events):
        yield f"NOT INTACT: {unallowed:,} events since the head, listed below"
    if proof.anchored is False:
        yield "the head you gave is NOT in the chain: its end was cut off, or it was written anew"
    elif proof.anchored:
        yield "the head you gave is in the chain"
    for one in proof.differences[:SHOWN]:
        yield f"  {one.what}: {one.id} in {one.table}"
    if proof.different > SHOWN:
        yield f"  and {proof.different - SHOWN:,} more (--json names 1,000)"
    if proof.outside:
        yield f"{proof.outside:,} calls were stored before the chain began: nothing is said of them"
    for table, count in sorted(proof.added_by_others.items()):
        verdict = "NOT allowed with --strict" if strict else "people may, in MLflow"
        yield f"{count:,} rows were added to {table} since ({verdict})"
    if proof.archived_not_proven:
        verdict = ", NOT allowed with --strict" if strict else ""
        yield (
            f"{proof.archived_not_proven:,} traces archived by MLflow are not proven: their spans"
            f" cannot be read from the archive{verdict}"
        )
    yield from _events(proof.events)
    yield f"head {proof.head}"


def _events(events: "list[Event]") -> Iterator[str]:
    """Every event since the head, and the last ones before it."""
    since = [event for event in events if event.since_head]
    before = events[: len(events) - len(since)]
    if len(before) > SHOWN:
        yield f"{len(before) - SHOWN:,} older corrections, removals and erasures (--json lists all)"
    for event in before[-SHOWN:]:
        yield _event(event)
    for event in since:
        verdict = "allowed" if event.allowed else f"fails without --allow {event.kind}"
        yield f"since the head, {verdict}: {_event(event)}"


def _event(event: "Event") -> str:
    return f"{moment(event.at_ms)} UTC: {event.kind} of {event.records:,} records {event.note}"


def _read_again(uri: str) -> "FilesProof":
    from flowledger.audit.file_proof import verify_files  # which loads MLflow

    return verify_files(uri)


def _files_proven(read: "FilesProof") -> Iterator[str]:
    late = f", {read.waiting:,} of them wait for the artifact store" if read.waiting else ""
    yield f"{read.files:,} files are as they were sent{late}"
    for one in read.differences[:SHOWN]:
        yield f"  {one.what}: a file of {one.id} in the artifact store"
    if len(read.differences) > SHOWN:
        yield f"  and {len(read.differences) - SHOWN:,} more (--json names all)"
    for folder, why in read.unreached.items():
        yield f"  NOT reached: {folder}: {why}"


def _progress(done: int, of: int) -> None:
    if on_terminal():
        click.echo(f"\r{done:,} of {of:,}", nl=False, err=True)


def _ms(moment_given: datetime | None) -> int | None:
    if moment_given is None:
        return None
    return int(moment_given.replace(tzinfo=UTC).timestamp() * 1000)


def _need_packages() -> None:
    try:
        import sqlalchemy  # noqa: F401
    except ImportError as exc:
        raise StoreMisconfigured(
            f"{exc.name} is not installed: pip install 'flowledger[server]'"
        ) from exc
