"""Keys for ingest: who may send calls without being one of MLflow's users.

A key is `flk_<id>_<secret>`. The secret is 256 random bits, so what is kept of it, one SHA-256, can
neither be turned back nor guessed: salt and slow hashes protect secrets that people choose. A key
is found by its id and compared in constant time, so an answer's time says nothing about either.
"""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import sqlalchemy as sa

from flowledger.errors import ConfigError, NotFound, StoreUnavailable
from flowledger.store.schema import migrate
from flowledger.store.writers import open_writer

__all__ = ["Key", "Keys", "is_key", "open_keys"]

PREFIX = "flk"
NO_HASH = "0" * 64

_name = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}")
_token = re.compile(rf"{PREFIX}_([0-9a-f]{{12}})_([A-Za-z0-9_-]{{43}})")


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A key, without what is secret about it. Times are Unix milliseconds."""

    name: str
    id: str
    created_ms: int
    revoked_ms: int | None


class Keys:
    """The keys kept in a database.

    Args:
        engine: the database; it holds our tables.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def create(self, name: str) -> str:
        """Make a key and return its token, which nobody can read again.

        Raises:
            ConfigError: the name cannot be used, or a key of that name is in use.
            StoreUnavailable: the database does not answer.
        """
        if not _name.fullmatch(name):
            raise ConfigError(
                f"a key cannot be named {name!r}: use up to 100 letters, digits and . _ - @"
            )
        key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        row = {"id": key_id, "name": name, "hash": _hash(secret), "now": _now_ms()}
        try:
            with _answered(), self._engine.begin() as connection:
                connection.execute(sa.text(INSERT), row)
        except sa.exc.IntegrityError:
            raise ConfigError(
                f"a key named {name} is in use: revoke it first, or choose another name"
            ) from None
        return f"{PREFIX}_{key_id}_{secret}"

    def all(self) -> list[Key]:
        """Every key there is and was, oldest first."""
        with _answered(), self._engine.connect() as connection:
            rows = connection.execute(sa.text(SELECT_ALL)).mappings()
            return [msgspec.convert(dict(row), Key) for row in rows]

    def revoke(self, name: str) -> None:
        """Take a key back; the next request with it gets 401.

        Raises:
            NotFound: no key of that name is in use.
            StoreUnavailable: the database does not answer.
        """
        with _answered(), self._engine.begin() as connection:
            done = connection.execute(sa.text(REVOKE), {"name": name, "now": _now_ms()})
            if done.rowcount == 0:
                raise NotFound(f"no key named {name} is in use: see `flowledger keys list`")

    def holder(self, token: str) -> str | None:
        """The name of the key with this token, or None when there is none or it was revoked.

        Raises:
            StoreUnavailable: the database does not answer, so nobody can say.
        """
        parts = _token.fullmatch(token)
        if parts is None:
            return None
        with _answered(), self._engine.connect() as connection:
            row = connection.execute(sa.text(FIND), {"id": parts[1]}).one_or_none()
        kept = row.secret_hash if row is not None else NO_HASH
        matches = hmac.compare_digest(kept, _hash(parts[2]))
        return str(row.name) if row is not None and matches else None


INSERT = """
INSERT INTO llm_keys (id, name, secret_hash, created_ms) VALUES (:id, :name, :hash, :now)
"""
SELECT_ALL = "SELECT name, id, created_ms, revoked_ms FROM llm_keys ORDER BY created_ms, id"
REVOKE = "UPDATE llm_keys SET revoked_ms = :now WHERE name = :name AND revoked_ms IS NULL"
FIND = "SELECT name, secret_hash FROM llm_keys WHERE id = :id AND revoked_ms IS NULL"


def is_key(token: str) -> bool:
    """Whether this looks like one of our tokens, rather than somebody else's."""
    return token.startswith(f"{PREFIX}_")


@contextmanager
def open_keys(uri: str, *, make: bool) -> Iterator[Keys]:
    """The keys in a database.

    Args:
        uri: `sqlite:///` or `postgresql://`.
        make: make the database when a SQLite file is missing.

    Raises:
        ConfigError: the URI names no database.
        NotFound: there is no such file.
        StoreUnavailable: the database does not answer.
    """
    if not uri.startswith(("sqlite", "postgresql")):
        raise ConfigError(
            "keys are kept in the server's database: give its sqlite:/// or postgresql:// address "
            "with --backend-store-uri"
        )
    path = sa.make_url(uri).database or ""
    if uri.startswith("sqlite") and not make and not Path(path).is_file():
        raise NotFound(f"there is no database {path}: give the server's with --backend-store-uri")
    engine = open_writer(uri).engine
    try:
        with _answered():
            migrate(engine)
        yield Keys(engine)
    finally:
        engine.dispose()


@contextmanager
def _answered() -> Iterator[None]:
    """Say in our words that the database does not answer; a statement's values stay out of it."""
    try:
        yield
    except sa.exc.IntegrityError:
        raise
    except sa.exc.SQLAlchemyError as exc:
        reason = str(getattr(exc, "orig", None) or exc).partition("\n")[0]
        raise StoreUnavailable(f"the database does not answer: {reason}") from exc


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
