"""What a request's body holds: journal frames from a shipper, or JSON from people and scripts."""

import re
import struct
import time
from collections.abc import Sequence
from typing import Any, NamedTuple
from zlib import crc32

import msgspec
from fastapi import HTTPException

from flowledger.errors import RecordError
from flowledger.journal import MAX_PAYLOAD
from flowledger.journal.frames import MARKER
from flowledger.records import Call, Usage, encode_fields, new_id
from flowledger.store import Refusal
from flowledger.store.entries import DEFAULT_EXPERIMENT, MAX_EXPERIMENT

__all__ = ["LARGEST", "JsonBatch", "experiments_of", "read_frames", "read_json", "runs_of"]

LARGEST = 2**62  # databases hold 64 bits, sums of two numbers included

_head = struct.Struct("<2sII")  # as journal/frames.py writes it
_place_in = re.compile(r"(?:a value cannot be encoded: )?(.*?)(?: - at `\$\.?(.*)`)?", re.DOTALL)
_wanted = re.compile(r"Expected `(.*)`, got `(.*)`")


class JsonBatch(NamedTuple):
    """Calls that came as JSON: what can be stored, and what cannot.

    `payloads` are encoded records, `places` where each stood in the request, `ids` the id of each
    call by its place in the request, None for one that was refused.
    """

    payloads: list[bytes]
    places: list[int]
    ids: list[str | None]
    refusals: list[Refusal]

    def placed(self, refusals: Sequence[Refusal]) -> list[Refusal]:
        """Everything refused, by its place in the request."""
        later = [Refusal(self.places[place], reason) for place, reason in refusals]
        return sorted([*self.refusals, *later])

    def kept(self, refusals: Sequence[Refusal]) -> list[str | None]:
        """The id of each call by its place in the request, None where it was refused."""
        refused = {refusal.place for refusal in refusals}
        return [None if place in refused else id_ for place, id_ in enumerate(self.ids)]


def read_frames(data: bytes, most: int) -> list[bytes]:
    """The payloads of a stretch of journal frames.

    A shipper sends whole frames, so whatever is damaged here was damaged on the way: nothing of
    it is taken, and the frames after it are not searched for.

    Raises:
        HTTPException: 400 damaged or cut off, 413 more than `most` of them.
    """
    payloads: list[bytes] = []
    position = 0
    while position < len(data):
        if len(payloads) == most:
            raise _too_many(most)
        payload = _payload_at(data, position)
        payloads.append(payload)
        position += _head.size + len(payload)
    return payloads


def read_json(data: bytes, most: int) -> JsonBatch:
    """The calls of a JSON body: one object, or a list of them.

    Raises:
        HTTPException: 400 no JSON, 413 more than `most` of them, 422 neither call nor list.
    """
    given = _parsed(data)
    calls = given if isinstance(given, list) else [given]
    if not calls:
        raise HTTPException(422, "the list is empty: send at least one call")
    if len(calls) > most:
        raise _too_many(most)
    batch = JsonBatch([], [], [], [])
    for place, fields in enumerate(calls):
        _take(batch, place, fields)
    return batch


def experiments_of(payloads: Sequence[bytes]) -> set[str]:
    """The names of the experiments that the store will write these calls to."""
    names: set[str] = set()
    for payload in payloads:
        try:
            found = _place.decode(payload)
        except (msgspec.DecodeError, UnicodeError):
            continue  # the store refuses it
        alone = found.type == "span" and found.place is None
        if found.type in ("call", "job") or alone:
            names.add(_named(found.experiment or DEFAULT_EXPERIMENT))
        for name in (found.experiment, found.place and found.place.experiment):
            if found.type in OF_RUNS and name:
                names.add(_named(name))
    return names


def runs_of(payloads: Sequence[bytes]) -> set[str]:
    """The ids of runs and traces that these records may add to, whatever experiment they name."""
    ids: set[str] = set()
    for payload in payloads:
        try:
            found = _place.decode(payload)
        except (msgspec.DecodeError, UnicodeError):
            continue  # the store refuses it
        if found.type == "job":
            ids.add(found.id)
        if found.type in ("logged", "artifact"):
            ids.add(found.run_id)
        if found.place is not None:
            ids.add(found.place.root_id)
    return ids


def _named(experiment: str) -> str:
    return experiment.replace("\0", "\ufffd")[:MAX_EXPERIMENT]


class _Within(msgspec.Struct):
    root_id: str = ""
    experiment: str | None = None


class _Place(msgspec.Struct):
    type: str = ""
    id: str = ""
    experiment: str | None = None
    run_id: str = ""
    place: _Within | None = None


OF_RUNS = ("call", "job", "span", "logged", "artifact")
_place = msgspec.msgpack.Decoder(_Place)


def _payload_at(data: bytes, position: int) -> bytes:
    start = position + _head.size
    if start > len(data):
        raise _damaged("the last frame is cut off")
    marker, length, checksum = _head.unpack_from(data, position)
    if marker != MARKER or length > MAX_PAYLOAD:
        raise _damaged(f"no frame begins at byte {position}")
    if start + length > len(data):
        raise _damaged("the last frame is cut off")
    payload = data[start : start + length]
    if crc32(payload) != checksum:
        raise _damaged(f"the frame at byte {position} is damaged")
    return payload


def _damaged(what: str) -> HTTPException:
    return HTTPException(400, f"{what}: nothing of the batch was stored, send it again")


def _too_many(most: int) -> HTTPException:
    return HTTPException(413, f"send at most {most} records at once: split the batch")


def _parsed(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeError) as exc:
        raise HTTPException(400, f"the body is not JSON: {exc}") from exc
    except RecursionError as exc:
        raise HTTPException(400, "the JSON is nested too deeply") from exc


def _take(batch: JsonBatch, place: int, given: Any) -> None:
    try:
        fields = _completed(given)
        payload = _encoded(fields)
    except RecordError as exc:
        batch.refusals.append(Refusal(place, _sentence(str(exc))))
        batch.ids.append(None)
    else:
        batch.payloads.append(payload)
        batch.places.append(place)
        batch.ids.append(fields["id"])


def _encoded(fields: dict[str, Any]) -> bytes:
    try:
        return encode_fields(fields)
    except RecordError:
        return encode_fields(_fitting(fields))  # or the reason why not


def _fitting(value: Any) -> Any:
    """The value with whole numbers over 64 bits as floats, which JSON does not tell apart."""
    try:
        if isinstance(value, dict):
            return {key: _fitting(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [_fitting(inner) for inner in value]
        if isinstance(value, int) and not -(2**63) <= value < 2**64:
            return float(value)
    except (RecursionError, OverflowError) as exc:
        raise RecordError("it is nested too deeply, or a number in it is too large") from exc
    return value


def _completed(given: Any) -> dict[str, Any]:
    """A call with what people need not send: an id, a start, and its feature's experiment."""
    if not isinstance(given, dict):
        raise RecordError("a call must be a JSON object")
    if given.get("type", "call") != "call":
        raise RecordError("type must be call, or left out: nothing else is taken as JSON")
    made: dict[str, Any] = {"type": "call", "id": new_id(), "start_ns": time.time_ns()}
    if isinstance(given.get("feature"), str):
        made["experiment"] = given["feature"]
    fields = {**made, **_whole(given, "", WHOLE_NUMBERS)}
    if isinstance(usage := fields.get("usage"), dict):
        fields["usage"] = _whole(usage, "usage.", WHOLE_NUMBERS_OF_USAGE)
    return fields


def _whole(given: dict[str, Any], part: str, names: frozenset[str]) -> dict[str, Any]:
    """The fields with whole numbers as such: JSON does not tell 5.0 from 5."""
    whole = dict(given)
    for name in names & given.keys():
        value = given[name]
        if not _is_number(value):
            continue  # a wrong type is told by its own sentence
        if not 0 <= value <= LARGEST or value != int(value):
            raise RecordError(f"{part}{name} must be a whole number from 0 to {LARGEST}")
        whole[name] = int(value)
    return whole


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _sentence(error: str) -> str:
    """msgspec's words for a wrong type, with the field first and what to send."""
    found = _place_in.fullmatch(error)
    said, field = (found[1], found[2]) if found else (error, "")
    wanted = _wanted.fullmatch(said)
    if wanted:
        said = f"must be {_types(wanted[1])}, not {_types(wanted[2])}"
    return f"{field} {said}" if field else said


def _types(names: str) -> str:
    return " or ".join(_PLAIN_WORDS.get(name, name) for name in names.split(" | "))


def _whole_numbers(of: type[msgspec.Struct]) -> frozenset[str]:
    fields = msgspec.structs.fields(of)
    return frozenset(field.encode_name for field in fields if field.type in (int, int | None))


WHOLE_NUMBERS = _whole_numbers(Call)
WHOLE_NUMBERS_OF_USAGE = _whole_numbers(Usage)
_PLAIN_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "bytes": "text",
}
