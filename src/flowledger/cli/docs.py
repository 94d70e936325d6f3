"""`flowledger docs`: the documents that chat answers from."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowledger.cli.text import Column, number, print_json, print_table
from flowledger.errors import ChatError, DocumentError, NotFound

if TYPE_CHECKING:
    from flowledger.chat.library import Document, Library
    from flowledger.chat.steps import Source

COLUMNS = (Column("document"), Column("passages", right=True), Column("embedding", leaves=1))
FOUND = (Column("score", right=True), Column("document"), Column("place"), Column("text"))
PASSAGES_A_TRANSACTION = 2000
SHOWN = 80


@click.group()
def command() -> None:
    """Add, list, search and remove the documents that chat answers from.

    They are kept in the database that FLOWLEDGER_CHAT_STORE names; without it, in a file of
    FLOWLEDGER_HOME. With FLOWLEDGER_EMBEDDING_MODEL set they are found by meaning, too.

    \b
    Examples:
      flowledger docs add handbook/ prices.pdf
      flowledger docs search "how long is the warranty"
      flowledger docs list
    """


@command.command("add")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def add(paths: tuple[Path, ...], as_json: bool) -> None:
    """Add files, and every file of a known kind in folders: text, Markdown, HTML, PDF.

    A file that changed takes the place of what was there; one that did not is left alone. A file
    that cannot be read is named, the others are added, and the exit code is 1.
    """
    from flowledger.chat.library import batches, opened

    library = opened()
    reading = _Reading(library)
    passages = 0
    for batch in batches(reading.documents(paths), PASSAGES_A_TRANSACTION):
        library.add(batch)
        passages += sum(len(document.passages) for document in batch)
    if as_json:
        counts = {"added": reading.added, "passages": passages, "unchanged": reading.unchanged}
        print_json({**counts, "failed": reading.failed})
    else:
        click.echo(
            f"added {number(reading.added)} documents in {number(passages)} passages; "
            f"{number(reading.unchanged)} had not changed"
        )
    if reading.failed:
        raise SystemExit(1)


class _Reading:
    """Reads files one after the other and counts what became of them."""

    def __init__(self, library: "Library") -> None:
        self._known = {one.source: (one.digest, one.embedding) for one in library.listed()}
        self.added = self.unchanged = self.failed = 0

    def documents(self, paths: tuple[Path, ...]) -> Iterator["Document"]:
        """Those that are new or changed; what cannot be read is told on stderr."""
        from flowledger.chat.library.files import files_in

        for path in paths:
            try:
                files = files_in(path)
            except DocumentError as exc:
                self._tell(exc)
                continue
            for file in files:
                document = self._document(file)
                if document is not None:
                    yield document

    def _document(self, file: Path) -> "Document | None":
        from flowledger.chat import retrieval

        try:
            document = retrieval.as_document(file, self._known)
        except (DocumentError, ChatError) as exc:
            self._tell(exc)
            return None
        self.added += document is not None
        self.unchanged += document is None
        return document

    def _tell(self, exc: Exception) -> None:
        self.failed += 1
        click.echo(f"flowledger: {exc}", err=True)


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(as_json: bool) -> None:
    """List every document, with how many passages it has and the model of its vectors."""
    from flowledger.chat.library import opened

    documents = opened().listed()
    if as_json:
        print_json(documents)
    elif not documents:
        click.echo("there are no documents yet: flowledger docs add PATH")
    else:
        cells = ([d.source, number(d.passages), d.embedding or "-"] for d in documents)
        print_table(COLUMNS, cells)


@command.command("search")
@click.argument("query")
@click.option("-n", "--limit", type=click.IntRange(1, 100), default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the whole passages.")
def search(query: str, limit: int, as_json: bool) -> None:
    """Show the passages that chat would answer QUERY from, best first."""
    from flowledger.chat import retrieval

    found = retrieval.look_up(query, limit)
    if as_json:
        print_json(found)
    elif not found:
        raise NotFound("no passage holds any of these words")
    else:
        print_table(FOUND, map(_cells, found))


def _cells(found: "Source") -> list[str]:
    text = " ".join(found.text.split())[:SHOWN]
    return [f"{found.score:.3g}", Path(found.source).name, found.place or "-", text]


@command.command("remove")
@click.argument("path")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def remove(path: str, as_json: bool) -> None:
    """Remove a document, by the path that `list` shows, or any that leads to it."""
    from flowledger.chat.library import opened

    if not (opened().remove(path) or opened().remove(str(Path(path).absolute()))):
        raise NotFound(f"there is no document {path}")
    if as_json:
        print_json({"removed": path})
    else:
        click.echo(f"removed {path}")
