"""`flowledger doctor`: what is configured, what waits, what is wrong, and what to do."""

import sys
from collections.abc import Iterator

import click

from flowledger.cli.diagnosis import Report, examine, waiting
from flowledger.cli.store_check import StoreState
from flowledger.cli.text import moment, print_json, printable
from flowledger.shipping.waiting import JournalState

LABEL_WIDTH = 18


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts and bug reports.")
def command(as_json: bool) -> None:
    """Say what is configured, what waits, what is wrong, and what to do.

    Looks at this host and its store, and changes nothing. Exit code 0 when all is well, 1 when
    something needs doing. No password is printed.

    \b
    Examples:
      flowledger doctor
      flowledger doctor --json > report.json
    """
    report = examine()
    if as_json:
        print_json(report)
    else:
        for line in _lines(report):
            click.echo(printable(line))
    sys.exit(1 if report.problems else 0)


def _lines(report: Report) -> Iterator[str]:
    yield f"flowledger {report.version}, recording is {report.recording}"
    yield from _settings(report)
    if report.store is not None:
        yield from ("", "Store", *_store(report.store))
    for journal in report.journals:
        yield from ("", f"Journals for {journal.place}", *_journal(journal))
    yield from ("", *_to_do(report))


def _settings(report: Report) -> Iterator[str]:
    if report.settings:
        yield from ("", "Settings")
    for setting in report.settings:
        value = setting.value if setting.value != "" else "-"
        yield _line(setting.name, f"{value}  ({setting.source})")
    if report.missing_packages:
        yield _line("missing packages", ", ".join(report.missing_packages))


def _store(store: StoreState) -> Iterator[str]:
    yield _line("place", store.place)
    yield _line("state", store.error or store.summary)
    if store.revision:
        known = "not supported by" if store.unsupported else "tested with"
        yield _line("MLflow revision", f"{store.revision} ({known} this flowledger)")
    if store.last_ms is not None:
        yield _line("latest call", f"{moment(store.last_ms)} UTC")
    if store.months_ahead is not None:
        yield _line("kept by month", f"{max(store.months_ahead, 0)} months after this one are made")
    if store.dropped:
        yield _line("dropped so far", f"{store.dropped:,} records had no room in a journal")


def _journal(journal: JournalState) -> Iterator[str]:
    if journal.unreadable:
        yield _line("state", journal.unreadable)
        return
    yield _line("folder", journal.folder)
    yield _line("collector", "runs" if journal.collector_runs else "does not run")
    yield _line("waiting", waiting(journal) if journal.waiting_bytes else "nothing")
    if journal.error and journal.said_at:
        said = moment(int(journal.said_at * 1000))
        yield _line("last error", f"{journal.error}  (at {said} UTC)")
    if journal.rejected:
        yield _line("rejected", f"{journal.rejected:,} records, in {journal.rejected_folder}")
    if journal.dropped:
        yield _line("dropped", f"{journal.dropped:,} records")


def _to_do(report: Report) -> Iterator[str]:
    if not report.problems:
        yield "All is well."
        return
    yield "To do"
    for place, problem in enumerate(report.problems, 1):
        yield f"  {place}. {problem.what}"
        yield f"     -> {problem.do}"


def _line(label: str, value: str) -> str:
    return f"  {label.replace('_', ' '):<{LABEL_WIDTH}}{value}"
