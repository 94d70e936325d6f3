"""The catalog of questions: SQL files taken apart into named, described blocks.

    -- name: recent_calls
    -- One or more sentences that say what is asked.
    SELECT ... LIMIT :limit

Names in braces stand for SQL that `sources.py` makes. A block ends where the next one begins.
Comments before the first block belong to the file. Values come in as `:name`, so a block holds no
other colon. Blocks run on SQLite and PostgreSQL as they are, and keep to what ClickHouse
understands too: no `::`, no `FILTER`, no functions of one dialect.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files

import msgspec

__all__ = ["Block", "catalog", "parse"]

_name = re.compile(r"--\s*name:\s*(\S*)\s*$")
_identifier = re.compile(r"[a-z][a-z0-9_]*")
_hole = re.compile(r"{([a-z]+)}")
_parameter = re.compile(r":([a-z_]+)")


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """One question: its name, what it asks in plain words, and its SQL."""

    name: str
    description: str
    sql: str

    @property
    def parameters(self) -> frozenset[str]:
        """The names of the values it takes."""
        return frozenset(_parameter.findall(self.sql))

    @property
    def holes(self) -> frozenset[str]:
        """The names in braces, which stand for SQL that the asker makes."""
        return frozenset(_hole.findall(self.sql))

    def filled(self, holes: Mapping[str, str]) -> str:
        """Its SQL with every hole filled."""
        return _hole.sub(lambda found: holes[found[1]], self.sql)


@cache
def catalog() -> dict[str, Block]:
    """Every question there is, by name."""
    folder = files(__package__) / "sql"
    sources = sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    return _by_name(block for file in sources for block in parse(file.read_text("utf-8")))


def parse(source: str) -> list[Block]:
    """The blocks of one SQL file, in order.

    Raises:
        ValueError: a block has no proper name, no description or no SQL.
    """
    starts: list[tuple[str, list[str]]] = []
    for line in source.splitlines():
        if found := _name.match(line):
            starts.append((found[1], []))
        elif starts:
            starts[-1][1].append(line)
    return [_block(name, lines) for name, lines in starts]


def _block(name: str, lines: list[str]) -> Block:
    said = [line.removeprefix("--").strip() for line in lines if line.startswith("--")]
    sql = "\n".join(line for line in lines if not line.startswith("--")).strip()
    if not _identifier.fullmatch(name):
        raise ValueError(f"-- name: {name!r} must be lower-case letters, digits and underscores")
    if not said or not sql:
        raise ValueError(f"-- name: {name} needs a sentence on what it asks, and its SQL")
    return Block(name=name, description=" ".join(said), sql=sql.removesuffix(";"))


def _by_name(blocks: Iterable[Block]) -> dict[str, Block]:
    named: dict[str, Block] = {}
    for block in blocks:
        if block.name in named:
            raise ValueError(f"-- name: {block.name} is there twice")
        named[block.name] = block
    return named
