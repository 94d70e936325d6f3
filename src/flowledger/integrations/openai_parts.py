"""Gathering the chunks of OpenAI's streams into the form of a whole answer."""

from typing import Any

from flowledger.capture.reading import field
from flowledger.integrations.sdk_parts import MAX_PIECES, Kept

__all__ = ["ChoiceParts", "EventParts", "ResponseParts", "TextParts"]


class ChoiceParts:
    """The chunks of a stream of choices: chat, and text completions."""

    def __init__(self) -> None:
        self.complete = False
        self._kept = Kept()
        self._reasons: dict[int, str | None] = {}
        self._tools: dict[tuple[int, int], dict[str, Any]] = {}
        self._model: str | None = None
        self._id: str | None = None
        self._usage: Any = None

    @property
    def cut(self) -> bool:
        return self._kept.cut

    def saw(self, chunk: Any) -> bool:
        choices = chunk.choices or ()
        # LiteLLM's chunks have some attributes only where there is something in them.
        usage = getattr(chunk, "usage", None)
        if usage is not None:
            self._usage = usage
            self.complete = not choices
        if not self._model:
            self._id, self._model = chunk.id, chunk.model
        new = False
        for choice in choices:
            new = self._choice(choice) or new
        return new

    def answer(self) -> Any:
        choices = [self._whole(index) for index in sorted(self._reasons)] or [{"message": {}}]
        return {
            "id": self._id,
            "model": self._model,
            "usage": self._usage,
            "choices": choices,
        }

    def _choice(self, choice: Any) -> bool:
        index, reasons = choice.index or 0, self._reasons
        if index not in reasons:
            if len(reasons) == MAX_PIECES:
                return False
            reasons[index] = None
        if choice.finish_reason is not None:
            reasons[index] = choice.finish_reason
        return self._content(index, choice)

    def _content(self, index: int, choice: Any) -> bool:
        delta = choice.delta
        text = getattr(delta, "content", None) or getattr(delta, "refusal", None)
        if text:
            self._kept.add(index, text)
        tools = getattr(delta, "tool_calls", None) or ()
        for tool in tools:
            self._tool((index, tool.index or 0), tool)
        return bool(text or tools)

    def _tool(self, key: tuple[int, int], tool: Any) -> None:
        if key not in self._tools and len(self._tools) < MAX_PIECES:
            self._tools[key] = {"id": tool.id, "name": field(tool.function, "name")}
        if key in self._tools:
            self._kept.add(key, field(tool.function, "arguments") or "")

    def _whole(self, index: int) -> dict[str, Any]:
        calls = [
            {"id": tool["id"], "function": {**tool, "arguments": self._kept.text(key)}}
            for key, tool in self._tools.items()
            if key[0] == index
        ]
        message = {"content": self._kept.text(index), "tool_calls": calls}
        return {"finish_reason": self._reasons[index], "message": message}


class TextParts(ChoiceParts):
    """The chunks of a streamed text completion."""

    def _content(self, index: int, choice: Any) -> bool:
        if choice.text:
            self._kept.add(index, choice.text)
        return bool(choice.text)


class ResponseParts:
    """The events of a streamed response; the last one carries the whole of it."""

    STATES = ("created", "queued", "in_progress", "completed", "incomplete", "failed")
    LAST = ("response.completed", "response.incomplete", "response.failed", "error")

    def __init__(self) -> None:
        self.complete = False
        self._kept = Kept()
        self._items: dict[int, Any] = {}
        self._response: Any = None

    @property
    def cut(self) -> bool:
        return self._kept.cut and not self.complete

    def saw(self, event: Any) -> bool:
        name = event.type
        if name == "response.output_text.delta":
            self._kept.add(event.output_index, event.delta)
        elif name == "response.output_item.done" and len(self._items) < MAX_PIECES:
            self._items[event.output_index] = event.item
        elif name == "error":
            self._response = {"status": "failed", "error": event, "output": [{}]}
        elif name.partition(".")[2] in self.STATES:
            self._response = event.response
        self.complete = self.complete or name in self.LAST
        return bool(name.endswith(".delta"))

    def answer(self) -> Any:
        if self.complete:
            return self._response
        texts = {index: self._kept.text(index) for index in self._kept.keys() - set(self._items)}
        items = {**{index: {"content": text} for index, text in texts.items()}, **self._items}
        output = [items[index] for index in sorted(items)]
        return {"model": field(self._response, "model"), "output": output or [{}]}


class EventParts:
    """The events of streamed images and transcripts; those that end something carry all of it."""

    def __init__(self) -> None:
        self.complete = False
        self._kept = Kept()
        self._ends: list[Any] = []

    @property
    def cut(self) -> bool:
        return self._kept.cut and not self.complete

    def saw(self, event: Any) -> bool:
        name = event.type
        if name.endswith(".text.delta"):
            self._kept.add("text", event.delta)
        elif name.endswith((".text.done", ".completed")) and len(self._ends) < MAX_PIECES:
            self._ends.append(event)
            self.complete = True
        return True

    def answer(self) -> Any:
        last = self._ends[-1] if self._ends else None
        told = {name: field(last, name) for name in ("usage", "size", "quality", "output_format")}
        return {**told, "data": self._ends, "text": field(last, "text") or self._kept.text("text")}
