"""A report as Markdown: tables, and charts as images in files beside it."""

import re
from collections.abc import Iterable, Iterator

import vl_convert

from flowledger.charts import LIGHT
from flowledger.cli.reporting.document import Document, Section, Table

__all__ = ["as_markdown", "pictures"]

_special = re.compile(r"([\\`*_{}\[\]<>#|~])")
_unseen = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def pictures(document: Document, stem: str) -> dict[str, bytes]:
    """The charts as SVG, by the name of a file beside the report.

    Args:
        document: the report.
        stem: what the names of files begin with.
    """
    return {
        _file(stem, section): vl_convert.vegalite_to_svg(section.chart.spec(LIGHT)).encode()
        for section in document.sections
        if section.chart is not None and not section.chart.is_empty
    }


def as_markdown(document: Document, stem: str | None = None) -> bytes:
    """The text, in UTF-8.

    Args:
        document: the report.
        stem: what the names of the images begin with; None for no images.
    """
    return ("\n".join(_lines(document, stem)) + "\n").encode()


def _lines(document: Document, stem: str | None) -> Iterator[str]:
    yield f"# {_text(document.title)}"
    yield f"\n{_text(document.about)}. Written {document.generated} by flowledger.\n"
    yield from _table(Table(("", "", ""), [tuple(tile) for tile in document.tiles]))
    for section in document.sections:
        yield f"\n## {_text(section.title)}"
        chart = section.chart
        if chart is not None and not chart.is_empty:
            yield f"\n{_text(chart.title)}: {_text(chart.summary)}."
            if stem is not None:
                yield f"\n![{_text(chart.title)}]({_file(stem, section)})"
            if section.table is None:
                yield ""
                yield from _table(Table(chart.head, chart.rows))
        if section.table is not None:
            yield ""
            yield from _table(section.table)
    yield ""
    yield from (f"{_text(note)}\n" for note in document.notes)


def _table(table: Table) -> Iterator[str]:
    yield _row(table.head)
    yield _row("---:" if place >= table.numeric else "---" for place in range(len(table.head)))
    for row in table.rows:
        yield _row(map(_text, row))


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(text: str) -> str:
    """What somebody else wrote, as a reader sees it."""
    return _special.sub(r"\\\1", _unseen.sub(" ", text))


def _file(stem: str, section: Section) -> str:
    return f"{stem}-{section.title.lower().replace(' ', '-')}.svg"
