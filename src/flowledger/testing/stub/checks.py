"""What OpenAI refuses before it thinks: missing, mistyped and out-of-range parameters."""

from collections.abc import Callable
from typing import Any

from flowledger.testing.stub.steering import Refusal

_ROLES = ("system", "assistant", "user", "function", "tool", "developer")
_NAMES = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a decimal",
    list: "an array",
    dict: "an object",
    type(None): "null",
}
_Expectation = tuple[str, Callable[[Any], bool]]


def _one_of(*types: type) -> Callable[[Any], bool]:
    return lambda value: type(value) in types


def _objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _texts(value: Any) -> bool:
    """A string, strings, a token list or several, as embeddings and completions take them."""
    if not isinstance(value, list):
        return isinstance(value, str)
    kinds = {type(item) for item in value}
    if kinds == {list}:
        return all(type(token) is int for item in value for token in item)
    return len(kinds) <= 1 and kinds <= {str, int}


_STRING: _Expectation = ("a string", _one_of(str))
_BOOLEAN: _Expectation = ("a boolean", _one_of(bool))
_INTEGER: _Expectation = ("an integer", _one_of(int))
_DECIMAL: _Expectation = ("a decimal", _one_of(int, float))
_OBJECT: _Expectation = ("an object", _one_of(dict))
_OBJECTS: _Expectation = ("an array of objects", _objects)
_TEXTS: _Expectation = ("a string or an array of strings or tokens", _texts)
_ITEMS: _Expectation = ("a string or an array of objects", lambda v: _objects(v) or type(v) is str)
_CHOICE: _Expectation = ("a string or an object", _one_of(str, dict))

_EXPECTED: dict[str, _Expectation] = {
    "model": _STRING,
    "messages": _OBJECTS,
    "stream": _BOOLEAN,
    "stream_options": _OBJECT,
    "n": _INTEGER,
    "seed": _INTEGER,
    "temperature": _DECIMAL,
    "top_p": _DECIMAL,
    "frequency_penalty": _DECIMAL,
    "presence_penalty": _DECIMAL,
    "max_tokens": _INTEGER,
    "max_completion_tokens": _INTEGER,
    "max_output_tokens": _INTEGER,
    "dimensions": _INTEGER,
    "tools": _OBJECTS,
    "tool_choice": _CHOICE,
    "user": _STRING,
    "instructions": _ITEMS,
    "encoding_format": _STRING,
    "size": _STRING,
    "quality": _STRING,
    "metadata": _OBJECT,
}
# What only some endpoints take, or take in another form.
CHAT: dict[str, _Expectation] = {"response_format": _OBJECT}
COMPLETIONS: dict[str, _Expectation] = {"prompt": _TEXTS}
EMBEDDINGS: dict[str, _Expectation] = {"input": _TEXTS}
IMAGES: dict[str, _Expectation] = {"prompt": _STRING, "response_format": _STRING}
RESPONSES: dict[str, _Expectation] = {"input": _ITEMS, "text": _OBJECT}

_RANGES: dict[str, tuple[float, float]] = {
    "n": (1, 128),
    "temperature": (0, 2),
    "top_p": (0, 1),
    "max_tokens": (1, 1_000_000),
    "max_completion_tokens": (1, 1_000_000),
    "max_output_tokens": (1, 1_000_000),
    "dimensions": (1, 3072),
}


def check(body: dict[str, Any], required: str | None, own: dict[str, _Expectation]) -> None:
    """Refuse what OpenAI would.

    Raises:
        Refusal: the first thing that is wrong, in OpenAI's words.
    """
    if body.get("model") in (None, ""):
        raise Refusal(400, "you must provide a model parameter")
    if required and body.get(required) is None:
        raise missing(required)
    for name, expectation in (_EXPECTED | own).items():
        if body.get(name) is not None:
            _check_type(name, body[name], expectation)
    for name, (low, high) in _RANGES.items():
        if body.get(name) is not None:
            _check_range(name, body[name], low, high)


def _check_type(name: str, value: Any, expectation: _Expectation) -> None:
    expected, fits = expectation
    if not fits(value):
        raise _wrong_type(name, expected, value)
    if value == [] and name in ("messages", "input", "prompt"):
        message = (
            f"Invalid '{name}': empty array. Expected an array with minimum length 1, "
            "but got an empty array instead."
        )
        raise Refusal(400, message, param=name, code="empty_array")


def _wrong_type(name: str, expected: str, value: Any) -> Refusal:
    got = _NAMES.get(type(value), "something else")
    message = f"Invalid type for '{name}': expected {expected}, but got {got} instead."
    return Refusal(400, message, param=name, code="invalid_type")


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if low <= value <= high:
        return
    kind = "integer" if isinstance(value, int) else "decimal"
    side, sign, bound = (
        ("below minimum", ">=", low) if value < low else ("above maximum", "<=", high)
    )
    message = (
        f"Invalid '{name}': {kind} {side} value. Expected a value {sign} {bound}, "
        f"but got {value} instead."
    )
    code = f"{kind}_{side.replace('minimum', 'min').replace('maximum', 'max')}_value"
    raise Refusal(400, message, param=name, code=code.replace(" ", "_"))


def check_messages(messages: list[dict[str, Any]]) -> None:
    """Refuse messages without a known role, or whose content is neither text nor parts."""
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if "role" not in message:
            raise missing(f"{where}.role")
        if message["role"] not in _ROLES:
            known = ", ".join(f"'{role}'" for role in _ROLES)
            text = f"Invalid value: '{message['role']}'. Supported values are: {known}."
            raise Refusal(400, text, param=f"{where}.role", code="invalid_value")
        content = message.get("content")
        if content is not None and not isinstance(content, str) and not _objects(content):
            raise _wrong_type(f"{where}.content", "a string or an array of objects", content)


def check_tools(tools: list[dict[str, Any]], *, nested: bool) -> None:
    """Refuse functions without a name, or whose parameters are no schema."""
    for index, tool in enumerate(tools):
        where = f"tools[{index}]"
        if "type" not in tool:
            raise missing(f"{where}.type")
        if tool["type"] == "function" and nested:
            _check_function(tool.get("function"), f"{where}.function")
        elif tool["type"] == "function":
            _check_function(tool, where)


def _check_function(function: Any, where: str) -> None:
    if not isinstance(function, dict):
        raise missing(where)
    if not isinstance(function.get("name"), str):
        raise missing(f"{where}.name")
    parameters = function.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise _wrong_type(f"{where}.parameters", "an object", parameters)


def missing(name: str) -> Refusal:
    """The answer to a request without a parameter it needs."""
    message = f"Missing required parameter: '{name}'."
    return Refusal(400, message, param=name, code="missing_required_parameter")
