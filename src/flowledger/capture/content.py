"""Making content safe to keep: bounded, plain, without raw images.

Most calls are small and plain, and pass with one look at their encoded bytes. Only the others are
walked: long text is cut with a marker, its full length and its SHA-256; base64 images and audio
become their media type, size and hash; objects become plain values.

The application may change what it gave before the record is encoded. So what was asked is frozen
first: encoded at once, and copied into the record later. Each value is encoded only once.
"""

import base64
import binascii
import dataclasses
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, TypeAlias

import msgspec

from flowledger.asynchronous import reraise_asynchronous
from flowledger.errors import RecordError
from flowledger.records import Call, Job, Logged, Span, encode, encode_fields, encode_value
from flowledger.token_formulas import pixel_size

__all__ = ["encode_bounded", "freeze", "plain"]

MAX_DEPTH = 40
MAX_ITEMS = 20_000
MAX_TEXT = 64 << 10
SHORTEST_CUT = 128
REPR_LENGTH = 1000
MEDIA_KEYS = ("b64_json", "data")
MEDIA_TYPES = (
    (b"\x89PNG", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "audio/wav"),
    (b"ID3", "audio/mpeg"),
    (b"%PDF", "application/pdf"),
)
UNCHANGING = frozenset((str, int, float, bool, bytes, type(None)))
SURROGATES = "lone surrogates, which are no characters, were replaced"
# The fields that hold what the application gave, by record; each is bounded by itself.
BOUNDED: dict[type, tuple[str, ...]] = {
    Call: ("prompt", "response", "settings", "params", "metrics", "tags", "tool_calls"),
    Job: ("params", "tags"),
    Logged: ("params", "metrics", "tags"),
    Span: ("inputs", "outputs", "attributes"),
}

Bounded: TypeAlias = Call | Job | Logged | Span

_data_uri = re.compile(r"data:([\w.+-]+/[\w.+-]+)?[^,\s\"']{0,100};base64,([A-Za-z0-9+/=_-]+)")


def encode_bounded(record: Bounded, max_content_bytes: int) -> bytes:
    """The record as bytes for a journal, its content bounded and plain.

    Args:
        record: may hold anything in the fields that `BOUNDED` names.
        max_content_bytes: longest of these fields kept whole, in bytes of JSON.

    Raises:
        RecordError: not even the cleaned record can be encoded.
    """
    if not _surely_long(record, max_content_bytes):
        try:
            payload = encode(record)
        except RecordError as exc:
            payload = b""  # holds something that is not plain
            if "surrogates" in str(exc) and isinstance(record, Call):
                record = msgspec.structs.replace(record, notes=[*record.notes, SURROGATES])
        if 0 < len(payload) <= max_content_bytes and not _holds_media(payload):
            return payload
    return encode_fields(_bounded_fields(record, max_content_bytes))


def freeze(name: str, value: Any, max_content_bytes: int, notes: list[str]) -> Any:
    """Return a field's value as it is now, for a record that is encoded later.

    Never raises for what a value is or does.

    Args:
        name: of the field, for notes.
        value: anything.
        max_content_bytes: as for `encode_bounded`.
        notes: gets a note when the value is not kept as it is.
    """
    if type(value) in UNCHANGING:
        return value
    if type(value) is dict and all(type(item) in UNCHANGING for item in value.values()):
        return value.copy()
    try:
        return msgspec.Raw(_encode_now(name, value, max_content_bytes, notes))
    except Exception as exc:  # noqa: BLE001 - the application's objects may raise anything
        reraise_asynchronous(exc)
        notes.append(f"{name} could not be read: {type(exc).__name__}")
        return None


def _encode_now(name: str, value: Any, limit: int, notes: list[str]) -> bytes:
    try:
        payload = encode_value(value)
        if len(payload) <= limit and not _holds_media(payload):
            return payload
    except RecordError as exc:
        notes += [SURROGATES] if "surrogates" in str(exc) else []
    kept, cut = _fitting(value, limit)
    notes += [_describe_cut(name, limit)] if cut else []
    return encode_value(kept)


def plain(value: Any) -> Any:
    """The value as text, numbers, lists and maps, without inline media."""
    return _Walk(MAX_TEXT, MAX_ITEMS, {}).visit(value, 0)


def _surely_long(record: Bounded, limit: int) -> bool:
    if isinstance(record, Call):
        return _is_long(record.prompt, limit) or _is_long(record.response, limit)
    return isinstance(record, Span) and _is_long(record.inputs, limit)


def _is_long(content: Any, limit: int) -> bool:
    return isinstance(content, str | bytes) and len(content) > limit


def _holds_media(payload: bytes) -> bool:
    """Whether there is a data URI, or a key of media as MessagePack writes short texts."""
    return (
        b";base64," in payload
        or b"\xa8b64_json" in payload
        or b"\xabinput_audio" in payload
        or b"\xabinline_data" in payload
        or b"\xaamedia_type" in payload
    )


def _bounded_fields(record: Bounded, limit: int) -> dict[str, Any]:
    given = {name: getattr(record, name) for name in BOUNDED[type(record)]}
    fields: dict[str, Any] = plain(msgspec.structs.replace(record, **dict.fromkeys(given)))
    notes = []
    for name, value in given.items():
        fields[name], cut = _fitting(value, limit)
        notes += [_describe_cut(name, limit)] if cut else []
    return {**fields, "notes": [*record.notes, *notes]} if isinstance(record, Call) else fields


def _describe_cut(name: str, limit: int) -> str:
    return f"{name} is cut: it is longer than {limit} bytes"


def _fitting(value: Any, limit: int) -> tuple[Any, bool]:
    """The value cut until its JSON fits: its long texts first, then its many values."""
    longest, most, hashes = limit - 2, MAX_ITEMS, dict[str, str]()
    while True:
        walk = _Walk(longest, most, hashes)
        kept = walk.visit(value, 0)
        if len(msgspec.json.encode(kept)) <= limit or most <= 1:
            return kept, walk.cut
        if longest > SHORTEST_CUT:
            longest //= 2
        else:
            most //= 4


def _described(media_type: str, data: bytes) -> str:
    size = pixel_size(data) if media_type.startswith("image/") else None
    pixels = f"{size[0]}x{size[1]} pixels, " if size else ""
    digest = hashlib.sha256(data).hexdigest()
    return f"[{media_type}, {pixels}{len(data)} bytes, sha256 {digest}]"


def _media_type(data: bytes) -> str:
    known = (media for magic, media in MEDIA_TYPES if data.startswith(magic))
    return next(known, "application/octet-stream")


def _from_base64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, altchars=b"-_" if "-" in text or "_" in text else None)
    except (binascii.Error, ValueError):
        return None


def _without_data_uris(text: str) -> str:
    def describe(match: re.Match[str]) -> str:
        data = _from_base64(match[2])
        return match[0] if data is None else _described(match[1] or _media_type(data), data)

    return _data_uri.sub(describe, text)


class _Walk:
    """One pass over a value, with bounds on its texts and on how many values it may hold.

    Args:
        longest_text: longer texts are cut, in bytes of UTF-8.
        most_items: values beyond so many are left out.
        hashes: SHA-256 of long texts, shared by the passes over the same value.
    """

    def __init__(self, longest_text: int, most_items: int, hashes: dict[str, str]) -> None:
        self._longest_text = longest_text
        self._room = most_items
        self._hashes = hashes
        self.cut = False

    def visit(self, value: Any, depth: int) -> Any:
        self._room -= 1
        if depth > MAX_DEPTH:
            self.cut = True
            return "[cut: too deep]"
        if value is None or isinstance(value, bool | float):
            return value
        if isinstance(value, int):
            return value if -(2**63) <= value < 2**64 else str(value)
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, bytes | bytearray | memoryview):
            return _described(_media_type(bytes(value[:8])), bytes(value))
        return self._container(value, depth)

    def _text(self, text: str) -> str:
        if ";base64," in text:
            text = _without_data_uris(text)
        if len(text) * 4 > self._longest_text:
            text = self._cut_text(text)
        return text if text.isascii() else text.encode("utf-8", "replace").decode()

    def _cut_text(self, text: str) -> str:
        """The text, or its beginning with its full length and hash when it is too long."""
        data = text.encode("utf-8", "replace")
        if len(data) <= self._longest_text:
            return text
        self.cut = True
        if text not in self._hashes:
            self._hashes[text] = hashlib.sha256(data).hexdigest()
        marker = f" [cut: {len(data)} bytes in all, sha256 {self._hashes[text]}]"
        return data[: max(0, self._longest_text - len(marker))].decode("utf-8", "ignore") + marker

    def _container(self, value: Any, depth: int) -> Any:
        try:
            return self._inside(value, depth)
        except Exception as exc:  # noqa: BLE001 - the object's own code may raise anything
            reraise_asynchronous(exc)
            self.cut = True
            return f"<{type(value).__name__} that raises {type(exc).__name__} when read>"

    def _inside(self, value: Any, depth: int) -> Any:
        if isinstance(value, Mapping):
            return self._map(value, depth)
        if isinstance(value, Sequence | Set):
            return self._list(value, depth)
        if isinstance(value, msgspec.Raw):
            return self.visit(msgspec.msgpack.decode(value), depth)
        opened = _opened(value)
        return self._text(_safe_repr(value)) if opened is None else self.visit(opened, depth + 1)

    def _list(self, values: Sequence[Any] | Set[Any], depth: int) -> list[Any]:
        kept: list[Any] = []
        for item in values:
            if self._room <= 0:
                self.cut = True
                return [*kept, f"[cut: {len(values)} values in all]"]
            kept.append(self.visit(item, depth + 1))
        return kept

    def _map(self, values: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for key, item in values.items():
            if self._room <= 0:
                self.cut = True
                return {**kept, "[cut]": f"{len(values)} values in all"}
            name = self._text(key if isinstance(key, str) else _safe_repr(key))
            media = self._media(item) if key in MEDIA_KEYS else None
            kept[name] = self.visit(item, depth + 1) if media is None else media
        return kept

    def _media(self, item: Any) -> str | None:
        if not isinstance(item, str) or len(item) < REPR_LENGTH:
            return None
        data = _from_base64(item)
        return None if data is None else _described(_media_type(data), data)


def _opened(value: Any) -> Any:
    """What an object holds, as something that can be walked; None when it does not tell."""
    openers: tuple[Callable[[Any], Any], ...] = (_struct, _dataclass, _pydantic, _builtin)
    for opener in openers:
        try:
            opened = opener(value)
        except Exception as exc:  # noqa: BLE001 - the object's own code may raise anything
            reraise_asynchronous(exc)
            continue
        if opened is not None:
            return opened
    return None


def _struct(value: Any) -> Any:
    if not isinstance(value, msgspec.Struct):
        return None
    config = value.__struct_config__
    named = {config.tag_field: config.tag} if config.tag_field else {}
    return {**named, **_not_default(value)}


def _not_default(value: msgspec.Struct) -> dict[str, Any]:
    fields = msgspec.structs.fields(value)
    values = ((field, getattr(value, field.name)) for field in fields)
    return {f.encode_name: v for f, v in values if v not in (f.default, {}, [])}


def _dataclass(value: Any) -> Any:
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return None
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _pydantic(value: Any) -> Any:
    return value.model_dump() if hasattr(value, "model_dump") else None


def _builtin(value: Any) -> Any:
    opened = msgspec.to_builtins(value)
    return None if opened is value else opened


def _safe_repr(value: Any) -> str:
    try:
        text = repr(value)
    except Exception as exc:  # noqa: BLE001 - the object's own code may raise anything
        reraise_asynchronous(exc)
        text = f"<{type(value).__name__} whose repr raises {type(exc).__name__}>"
    return text[:REPR_LENGTH]
