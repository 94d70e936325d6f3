"""A value that fits a JSON schema, for tool calls and structured answers.

Understood: `type`, `enum`, `const`, `$ref` (recursive ones too), `allOf`, `anyOf`, `oneOf`, and the
bounds, `format` and `pattern` of objects, arrays, strings and numbers. Anything else is ignored.
"""

import importlib
import math
import random
import re
from collections.abc import Callable, Iterable
from typing import Any

from flowledger.testing.stub.answers import words

# Deeper than this, a recursive schema is answered with the smallest value that fits.
_DEEP = 6
# A schema that demands itself has no value; here the attempt ends.
_BOTTOM = 60
_TRIES = 50
# The standard library's own reader of patterns; it has no public name.
_patterns: Any = importlib.import_module("re._parser")
_FORMATS = {
    "date": "2025-0[1-9]-[12][0-8]",
    "date-time": "2025-0[1-9]-[12][0-8]T1[0-9]:[0-5][0-9]:[0-5][0-9]Z",
    "time": "1[0-9]:[0-5][0-9]:[0-5][0-9]Z",
    "duration": "P[1-9]D",
    "email": "[a-z]{5}@example\\.com",
    "hostname": "[a-z]{5}\\.example\\.com",
    "uri": "https://example\\.com/[a-z]{5}",
    "uuid": "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}",
    "ipv4": "10(\\.[1-9][0-9]){3}",
    "ipv6": "fd00(:[1-9a-f][0-9a-f]{3}){7}",
}


def fitting(schema: Any, seed: int) -> Any:
    """A value that fits the schema, the same one for the same seed."""
    return _Maker(schema, random.Random(seed)).value(schema, 0)


class _Maker:
    def __init__(self, root: Any, rng: random.Random) -> None:
        self.root = root
        self.rng = rng

    def value(self, schema: Any, depth: int) -> Any:
        schema = self.plain(schema, depth)
        if "const" in schema or depth > _BOTTOM:
            return schema.get("const")
        if schema.get("enum"):
            return self.rng.choice(schema["enum"])
        return self._of_type(_type_of(schema), schema, depth)

    def _of_type(self, kind: str, schema: dict[str, Any], depth: int) -> Any:
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "integer" | "number":
                return self._number(schema, whole=kind == "integer")
            case "boolean":
                return self.rng.random() < 0.5
            case "null":
                return None
        return self._string(schema)

    def plain(self, schema: Any, depth: int) -> dict[str, Any]:
        """The schema without references and alternatives: one of them is taken."""
        flat: dict[str, Any] = dict(schema) if isinstance(schema, dict) else {}
        for _ in range(_TRIES):
            if "$ref" in flat:
                flat = self._target(flat.pop("$ref")) | flat
            elif "allOf" in flat:
                parts = [self.plain(part, depth) for part in flat.pop("allOf")]
                flat = _merged((*parts, flat))
            elif options := flat.pop("anyOf", None) or flat.pop("oneOf", None):
                flat = _merged((flat, self._option(options, depth)))
            else:
                break
        return flat

    def _target(self, ref: str) -> dict[str, Any]:
        found = self.root
        for step in ref.removeprefix("#").strip("/").split("/"):
            step = step.replace("~1", "/").replace("~0", "~")
            found = found.get(step, {}) if step and isinstance(found, dict) else found
        return found if isinstance(found, dict) else {}

    def _option(self, options: list[Any], depth: int) -> dict[str, Any]:
        plain = [self.plain(option, depth + 1) if depth <= _DEEP else option for option in options]
        if depth > _DEEP:
            return self.plain(min(plain, key=_size), depth + 1)
        telling = [option for option in plain if option.get("type") != "null"]
        return self.rng.choice(telling or plain)

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties", {})
        required = schema.get("required", [])
        names = (
            list(properties)
            if depth <= _DEEP
            else [name for name in properties if name in required]
        )
        names += [name for name in required if name not in properties]
        made = {name: self.value(properties.get(name, {}), depth + 1) for name in names}
        return made | self._further(schema, depth, len(made))

    def _further(self, schema: dict[str, Any], depth: int, have: int) -> dict[str, Any]:
        """Entries of an open mapping, such as `dict[str, int]`."""
        values = schema.get("additionalProperties", {})
        least = schema.get("minProperties", 0)
        if not have and depth <= _DEEP and isinstance(values, dict) and values:
            least = max(least, 1)
        count = range(least - have)
        return {f"key_{number + 1}": self.value(values, depth + 1) for number in count}

    def _array(self, schema: dict[str, Any], depth: int) -> list[Any]:
        first = [self.value(item, depth + 1) for item in schema.get("prefixItems", [])]
        if first and schema.get("items") is False:
            return first
        return first + self._items(schema, depth, len(first))

    def _items(self, schema: dict[str, Any], depth: int, have: int) -> list[Any]:
        least = schema.get("minItems", 0)
        wanted = least if depth > _DEEP else max(least, min(2, schema.get("maxItems", 2)))
        made: list[Any] = []
        for _ in range(max(0, wanted - have) * _TRIES):
            item = self.value(schema.get("items", {}), depth + 1)
            if not schema.get("uniqueItems") or item not in made:
                made.append(item)
            if len(made) >= wanted - have:
                break
        return made

    def _number(self, schema: dict[str, Any], *, whole: bool) -> int | float:
        low, high = _bounds(schema, 100.0 if whole else 1.0)
        step = schema.get("multipleOf", 1 if whole else None)
        if step:
            count = self.rng.randint(*_whole_between(low / step, high / step, schema))
            return int(count * step) if whole else round(count * step, 10)
        inside = low + (high - low) * self.rng.uniform(0.1, 0.9)
        return next((value for value in (round(inside, 2), inside) if low < value < high), low)

    def _string(self, schema: dict[str, Any]) -> str:
        least, most = schema.get("minLength", 0), schema.get("maxLength", math.inf)
        pattern = schema.get("pattern") or _FORMATS.get(schema.get("format", ""))
        if pattern:
            return self._matching(pattern, least, most)
        text = words(self.rng)
        while len(text) < least:
            text += " " + words(self.rng)
        return text if len(text) <= most else text[:most].rstrip().ljust(least, "x")

    def _matching(self, pattern: str, least: int, most: float) -> str:
        text = ""
        for _ in range(_TRIES):
            text = matching(pattern, self.rng)
            if least <= len(text) <= most:
                break
        return text


def _type_of(schema: dict[str, Any]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((name for name in kind if name != "null"), "null")
    if kind is None and ("properties" in schema or "additionalProperties" in schema):
        kind = "object"
    if kind is None and "items" in schema:
        kind = "array"
    return str(kind or "string")


def _merged(schemas: Iterable[dict[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for schema in schemas:
        together = {
            "properties": merged.get("properties", {}) | schema.get("properties", {}),
            "required": [*merged.get("required", []), *schema.get("required", [])],
        }
        merged |= schema | {key: value for key, value in together.items() if value}
    return merged


def _size(option: Any) -> int:
    """How likely an alternative is to end a recursion: the smaller, the likelier."""
    kinds = ("null", "boolean", "integer", "number", "string", "array", "object")
    kind = option.get("type") if isinstance(option, dict) else None
    return kinds.index(kind) if kind in kinds else len(kinds)


def _bounds(schema: dict[str, Any], span: float) -> tuple[float, float]:
    lows = [schema[key] for key in ("minimum", "exclusiveMinimum") if key in schema]
    highs = [schema[key] for key in ("maximum", "exclusiveMaximum") if key in schema]
    if lows:
        return max(lows), min(highs, default=max(lows) + span)
    return min([0.0, *(high - span for high in highs)]), min(highs, default=span)


def _whole_between(low: float, high: float, schema: dict[str, Any]) -> tuple[int, int]:
    """The whole numbers from low to high; without the ends where the schema leaves them out."""
    first = math.floor(low) + 1 if schema.get("exclusiveMinimum") is not None else math.ceil(low)
    last = math.ceil(high) - 1 if schema.get("exclusiveMaximum") is not None else math.floor(high)
    return first, max(first, last)


def matching(pattern: str, rng: random.Random) -> str:
    """A text in which the pattern is found; some words when the pattern cannot be read."""
    try:
        parsed = _patterns.parse(pattern)
        for _ in range(_TRIES):
            text = _render(parsed, rng)
            if re.search(pattern, text):
                return text
    except (re.error, OverflowError):
        pass
    return words(rng)


def _render(parsed: Any, rng: random.Random) -> str:
    return "".join(_RENDERERS.get(str(op), _nothing)(value, rng) for op, value in parsed)


def _nothing(_value: Any, _rng: random.Random) -> str:
    """For anchors and look-around: `matching` tries again when one of them minds."""
    return ""


def _repeat(value: Any, rng: random.Random) -> str:
    least, most, inner = value
    count = rng.randint(least, min(int(most), least + 3))
    return "".join(_render(inner, rng) for _ in range(count))


def _one_of(value: Any, rng: random.Random) -> str:
    negated = str(value[0][0]) == "NEGATE"
    chosen = {code for op, argument in value for code in _codes(str(op), argument)}
    allowed = sorted(set(range(32, 127)) - chosen if negated else chosen)
    return chr(rng.choice(allowed or [120]))


def _codes(op: str, argument: Any) -> Iterable[int]:
    match op:
        case "LITERAL":
            return (argument,)
        case "RANGE":
            return range(argument[0], min(argument[1], argument[0] + 500) + 1)
        case "CATEGORY":
            return (code for code in range(32, 127) if _in_category(str(argument), chr(code)))
    return ()


def _in_category(name: str, character: str) -> bool:
    negated = "_NOT_" in name
    letter = {"DIGIT": "d", "SPACE": "s", "WORD": "w"}[name.rsplit("_", 1)[1]]
    return bool(re.match(f"\\{letter}", character)) != negated


_RENDERERS: dict[str, Callable[[Any, random.Random], str]] = {
    "LITERAL": lambda value, _: chr(value),
    "NOT_LITERAL": lambda value, _: "x" if value != ord("x") else "y",
    "ANY": lambda _, rng: rng.choice("abcdefghijklmnopqrstuvwxyz"),
    "IN": _one_of,
    "BRANCH": lambda value, rng: _render(rng.choice(value[1]), rng),
    "SUBPATTERN": lambda value, rng: _render(value[-1], rng),
    "MAX_REPEAT": _repeat,
    "MIN_REPEAT": _repeat,
    "POSSESSIVE_REPEAT": _repeat,
    "ATOMIC_GROUP": _render,
}
