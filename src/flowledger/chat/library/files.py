"""Documents from files: text, Markdown, HTML and PDF, cut into passages."""

import hashlib
import logging
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

from flowledger.asynchronous import reraise_asynchronous
from flowledger.chat.library import Document, Passage
from flowledger.errors import ConfigError, DocumentError

__all__ = ["SUFFIXES", "files_in", "passages_of", "read_document"]

LONGEST_PASSAGE = 1000
OVERLAP = 150
LARGEST_FILE = 100 << 20

_heading = re.compile(r"#{1,6}\s+(.+?)\s*#*$")


def files_in(path: Path) -> list[Path]:
    """The file itself, or every file of a known kind in a folder and below, by name.

    Raises:
        DocumentError: there is no such file.
    """
    if path.is_dir():
        found = (one for one in path.rglob("*") if one.suffix.lower() in SUFFIXES and one.is_file())
        return sorted(found)
    if not path.is_file():
        raise DocumentError(f"there is no file {path}")
    return [path]


def read_document(path: Path) -> Document:
    """A file as a document, named by its full path.

    Raises:
        DocumentError: it is of no known kind, damaged, or holds no text.
        ConfigError: the package for its kind is missing.
    """
    reader = SUFFIXES.get(path.suffix.lower())
    if reader is None:
        raise DocumentError(f"{path}: no reader for this kind; there are {', '.join(SUFFIXES)}")
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise DocumentError(f"{path} cannot be read: {exc}") from exc
    if len(data) > LARGEST_FILE:
        raise DocumentError(f"{path} has {len(data)} bytes, and {LARGEST_FILE} is the most")
    passages = [one for place, text in reader(path, data) for one in passages_of(place, text)]
    if not passages:
        raise DocumentError(f"{path} holds no text")
    digest = hashlib.sha256(data).hexdigest()
    return Document(source=str(path.absolute()), digest=digest, passages=passages)


def passages_of(place: str, text: str) -> Iterator[Passage]:
    """The text in passages of up to 1,000 characters that overlap, cut where a thought ends."""
    text = text.strip()
    start = 0
    while len(text) - start > LONGEST_PASSAGE:
        end = start + _cut(text[start : start + LONGEST_PASSAGE])
        yield Passage(place, text[start:end].strip())
        start = end - OVERLAP
        start += _word_end(text[start:end])
    if text[start:].strip():
        yield Passage(place, text[start:].strip())


def _cut(window: str) -> int:
    """Where to end a passage: after a paragraph, else a sentence, a line or a word."""
    half = len(window) // 2
    for mark in ("\n\n", ". ", "\n", " "):
        at = window.rfind(mark, half)
        if at > 0:
            return at + len(mark)
    return len(window)


def _word_end(overlap: str) -> int:
    """How far into an overlap its first whole word begins."""
    found = re.search(r"\s", overlap)
    return found.end() if found else 0


Sections = Iterator[tuple[str, str]]


def _plain(path: Path, data: bytes) -> Sections:
    yield "", data.decode("utf-8", "replace")


def _markdown(path: Path, data: bytes) -> Sections:
    """Each heading's own text, under the heading."""
    heading, fenced = "", False
    lines: list[str] = []
    for line in data.decode("utf-8", "replace").splitlines():
        fenced ^= line.startswith("```")
        found = None if fenced else _heading.match(line)
        if found:
            yield heading, "\n".join(lines)
            heading, lines = found[1], []
        lines.append(line)
    yield heading, "\n".join(lines)


def _html(path: Path, data: bytes) -> Sections:
    parser = _Text()
    parser.feed(data.decode("utf-8", "replace"))
    parser.close()
    yield parser.title.strip(), re.sub(r"[ \t]*\n\s*\n\s*", "\n\n", "".join(parser.texts))


class _Text(HTMLParser):
    """The text people read: no scripts, no styles; blocks stand apart."""

    UNREAD = ("script", "style", "template", "noscript")
    BLOCKS = ("p", "div", "li", "tr", "br", "section", "article", "table", "pre", "blockquote")
    HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6", "title")

    def __init__(self) -> None:
        super().__init__()
        self.title = ""
        self.texts: list[str] = []
        self._unread = 0
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._unread += tag in self.UNREAD
        self._in_title = tag == "title" or self._in_title
        if tag in self.BLOCKS or tag in self.HEADINGS:
            self.texts.append("\n\n")

    def handle_endtag(self, tag: str) -> None:
        self._unread = max(0, self._unread - (tag in self.UNREAD))
        self._in_title = self._in_title and tag != "title"
        if tag in self.HEADINGS:
            self.texts.append("\n\n")

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data
        elif not self._unread:
            self.texts.append(data)


def _pdf(path: Path, data: bytes) -> Sections:
    """Page by page; what pypdf cannot read is a damaged document, not a crash."""
    try:
        import io

        from pypdf import PdfReader
    except ImportError as exc:
        raise ConfigError("PDF needs pypdf: pip install 'flowledger[chat]'") from exc
    logging.getLogger("pypdf").setLevel(logging.ERROR)
    try:
        reader = PdfReader(io.BytesIO(data))
        pages = [(f"page {n}", page.extract_text()) for n, page in enumerate(reader.pages, 1)]
    except Exception as exc:
        reraise_asynchronous(exc)
        told = " ".join(str(exc).split())
        raise DocumentError(f"{path} is no readable PDF: {type(exc).__name__}: {told}") from exc
    yield from pages


SUFFIXES: dict[str, Callable[[Path, bytes], Sections]] = {
    ".txt": _plain,
    ".rst": _plain,
    ".md": _markdown,
    ".markdown": _markdown,
    ".html": _html,
    ".htm": _html,
    ".pdf": _pdf,
}
