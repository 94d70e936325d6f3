"""What was asked and answered, out of a GenAI span's attributes and events, whatever their form."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from flowledger.records import ToolCall

__all__ = ["Asked", "content_of", "decoded"]

MAX_MESSAGES = 1000
LONGEST_JSON = 8 << 20
IMAGES = ("image", "image_url", "input_image")
DETAILS = "gen_ai.client.inference.operation.details"
ROLES = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
}
# Other names of a message's parts, in attributes whose keys are paths.
SHORTER = ("message.", "message_content.", "tool_call.", "function.")

Attributes = Mapping[str, Any]
Events = Sequence[tuple[str, Attributes]]


class Asked(NamedTuple):
    """What was asked and answered."""

    prompt: Any
    response: Any
    tool_calls: list[ToolCall]
    shows_image: bool


def content_of(about: Attributes, events: Events) -> Asked:
    """What a span says was asked and answered, each from the newest form that it uses."""
    details = next((given for name, given in events if name == DETAILS), {})
    asked = _messages(_first(about, details, "gen_ai.input.messages"))
    asked = _with_system(_first(about, details, "gen_ai.system_instructions"), asked)
    asked = asked or _indexed(about, "gen_ai.prompt") or _indexed(about, "llm.input_messages")
    asked = asked or _told(events)
    answered = _messages(_first(about, details, "gen_ai.output.messages"))
    answered = answered or _indexed(about, "gen_ai.completion")
    answered = answered or _indexed(about, "llm.output_messages") or _chosen(events)
    response, calls = _answer(answered)
    return Asked(
        prompt=asked or _whole_prompt(about, events),
        response=response if answered else _whole_answer(about, events),
        tool_calls=calls,
        shows_image=any(_shows_image(message) for message in asked),
    )


def decoded(value: Any) -> Any:
    """The value, or what it is JSON of."""
    if not isinstance(value, str) or not value.startswith(("{", "[")) or len(value) > LONGEST_JSON:
        return value
    try:
        return msgspec.json.decode(value.encode("utf-8", "replace"))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return value


def _first(about: Attributes, details: Attributes, name: str) -> Any:
    return decoded(about.get(name) if about.get(name) is not None else details.get(name))


def _messages(given: Any) -> list[dict[str, Any]]:
    """Messages as the conventions write them, as everybody knows them: a role and content."""
    if not isinstance(given, list | tuple):
        return []
    return [_message(one) for one in given[:MAX_MESSAGES] if isinstance(one, Mapping)]


def _message(given: Mapping[Any, Any]) -> dict[str, Any]:
    parts = given.get("parts")
    kept = {str(key): value for key, value in given.items() if key != "parts"}
    if isinstance(parts, list | tuple):
        kept["content"] = _content(parts[:MAX_MESSAGES])
    return kept


def _content(parts: Sequence[Any]) -> Any:
    """The text of parts that are only text, else the parts."""
    texts = [_part_text(part) for part in parts]
    if parts and all(isinstance(text, str) for text in texts):
        return "".join(texts)
    return list(parts)


def _part_text(part: Any) -> Any:
    if not isinstance(part, Mapping) or part.get("type") not in ("text", None):
        return None
    return part.get("content") if part.get("content") is not None else part.get("text")


def _with_system(given: Any, asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The instructions, which the conventions keep apart, before the messages."""
    if not given:
        return asked
    content = _content(given[:MAX_MESSAGES]) if isinstance(given, list | tuple) else given
    return [{"role": "system", "content": content}, *asked]


def _indexed(about: Attributes, prefix: str) -> list[dict[str, Any]]:
    """Messages spread over attributes: `gen_ai.prompt.0.content`, `llm.input_messages.0....`."""
    found = _numbered({k: v for k, v in about.items() if isinstance(k, str)}, f"{prefix}.")
    return [_gathered(fields) for fields in found]


def _numbered(about: Attributes, start: str) -> list[dict[str, Any]]:
    """The fields of each number under a path, in the order of the numbers."""
    numbered: dict[int, dict[str, Any]] = {}
    for key, value in about.items():
        if not key.startswith(start):
            continue
        number, _, rest = key[len(start) :].partition(".")
        if number.isascii() and number.isdecimal() and len(number) < 10 and rest:
            numbered.setdefault(int(number), {})[rest.removeprefix(SHORTER[0])] = value
    return [numbered[number] for number in sorted(numbered)[:MAX_MESSAGES]]


def _gathered(fields: Attributes) -> dict[str, Any]:
    message = {key: decoded(value) for key, value in fields.items() if "." not in key}
    contents = [_short(part) for part in _numbered(fields, "contents.")]
    if contents and "content" not in message:
        message["content"] = _content(contents)
    if calls := [_short(call) for call in _numbered(fields, "tool_calls.")]:
        message["tool_calls"] = calls
    return message


def _short(fields: Attributes) -> dict[str, Any]:
    short: dict[str, Any] = {}
    for key, value in fields.items():
        for prefix in SHORTER:
            key = key.removeprefix(prefix)
        short[key] = value
    return short


def _told(events: Events) -> list[dict[str, Any]]:
    """Messages that came as events of their own."""
    told = [(ROLES[name], about) for name, about in events if name in ROLES]
    return [{"role": role, **_body(about)} for role, about in told[:MAX_MESSAGES]]


def _chosen(events: Events) -> list[dict[str, Any]]:
    choices = [_body(about) for name, about in events if name == "gen_ai.choice"]
    messages = (decoded(choice.get("message", choice)) for choice in choices[:MAX_MESSAGES])
    return [_message(m) if isinstance(m, Mapping) else {"content": m} for m in messages]


def _body(about: Attributes) -> dict[str, Any]:
    names = ("role", "content", "tool_calls", "message", "id", "name", "finish_reason")
    return {name: decoded(about[name]) for name in names if about.get(name) is not None}


def _whole_prompt(about: Attributes, events: Events) -> Any:
    """A prompt that is no list of messages."""
    for name in ("gen_ai.prompt", "llm.prompts", "input.value"):
        if about.get(name) is not None:
            return decoded(about[name])
    embedded = _numbered(about, "embedding.embeddings.")
    if texts := [fields.get("embedding.text") for fields in embedded]:
        return texts
    return _of_event(events, "gen_ai.content.prompt", "gen_ai.prompt")


def _whole_answer(about: Attributes, events: Events) -> Any:
    for name in ("gen_ai.completion", "output.value"):
        if about.get(name) is not None:
            return decoded(about[name])
    return _of_event(events, "gen_ai.content.completion", "gen_ai.completion")


def _of_event(events: Events, event: str, name: str) -> Any:
    return next((decoded(about.get(name)) for found, about in events if found == event), None)


def _answer(messages: list[dict[str, Any]]) -> tuple[Any, list[ToolCall]]:
    """The text of an answer, of each where there are several, and the tools that it asks for."""
    texts = [text for message in messages if (text := _text_of(message)) is not None]
    calls = [call for message in messages for call in _tool_calls(message)]
    return (texts if len(texts) > 1 else texts[0] if texts else None), calls[:MAX_MESSAGES]


def _text_of(message: Mapping[str, Any]) -> Any:
    content = message.get("content")
    if not isinstance(content, list):
        return content
    texts = [text for part in content if isinstance(text := _part_text(part), str)]
    if texts:
        return "".join(texts)
    return None if any(_is_call(part) for part in content) else content


def _tool_calls(message: Mapping[str, Any]) -> Iterable[ToolCall]:
    content, calls = message.get("content"), decoded(message.get("tool_calls"))
    for part in content if isinstance(content, list) else ():
        if _is_call(part):
            yield _tool_call(part)
    for call in calls if isinstance(calls, list | tuple) else ():
        if isinstance(call, Mapping):
            yield _tool_call(call)


def _is_call(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "tool_call"


def _tool_call(given: Mapping[Any, Any]) -> ToolCall:
    function = given.get("function")
    inner = function if isinstance(function, Mapping) else given
    name, id_, arguments = inner.get("name"), given.get("id"), inner.get("arguments")
    return ToolCall(
        name=name if isinstance(name, str) else "",
        id=id_ if isinstance(id_, str) else None,
        arguments=arguments if arguments is None else _as_text(arguments),
    )


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError):
        return repr(value)[:MAX_MESSAGES]


def _shows_image(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    if not isinstance(content, list):
        return False
    parts = [part for part in content if isinstance(part, Mapping)]
    return any(part.get("type") in IMAGES or part.get("modality") == "image" for part in parts)
