"""Gathering the events of a streamed message into the form of a whole one."""

from typing import Any

from flowledger.capture.reading import field
from flowledger.integrations.sdk_parts import MAX_PIECES, Kept

__all__ = ["CompletionParts", "MessageParts"]

# The texts that come in pieces, by the kind of delta.
PIECES = {"text_delta": "text", "input_json_delta": "partial_json"}
COUNTS = (
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "output_tokens_details",
)
BLOCK = ("type", "id", "name", "text")


class MessageParts:
    """The events of a streamed message."""

    def __init__(self) -> None:
        self.complete = False
        self._kept = Kept()
        self._message: Any = None
        self._blocks: dict[int, dict[str, Any]] = {}
        self._usage: dict[str, Any] = {}
        self._reason: str | None = None

    @property
    def cut(self) -> bool:
        return self._kept.cut

    def saw(self, event: Any) -> bool:
        name = event.type
        if name == "message_start":
            self._message = event.message
            self._count(event.message.usage)
            self._usage["cache_creation"] = field(event.message.usage, "cache_creation")
            # The output is not there yet, and its count here is none.
            self._usage.pop("output_tokens", None)
        elif name == "content_block_start" and len(self._blocks) < MAX_PIECES:
            block = event.content_block
            self._blocks[event.index] = {key: field(block, key) for key in BLOCK}
        elif name == "message_delta":
            self._count(event.usage)
            self._reason = event.delta.stop_reason
        self.complete = self.complete or name == "message_stop"
        return name == "content_block_delta" and self._delta(event.index, event.delta)

    def answer(self) -> Any:
        return {
            "id": field(self._message, "id"),
            "model": field(self._message, "model"),
            "content": [self._block(index) for index in sorted(self._blocks)],
            "stop_reason": self._reason,
            "usage": self._usage or None,
        }

    def _count(self, usage: Any) -> None:
        counts = {name: field(usage, name) for name in COUNTS}
        self._usage |= {name: count for name, count in counts.items() if count is not None}

    def _delta(self, index: int, delta: Any) -> bool:
        name = PIECES.get(delta.type)
        piece = field(delta, name) if name else None
        if piece and index in self._blocks:
            self._kept.add(index, piece)
        return bool(piece) or delta.type == "thinking_delta"

    def _block(self, index: int) -> dict[str, Any]:
        block, text = self._blocks[index], self._kept.text(index)
        if text is None:
            return block
        return {**block, "text" if block["type"] == "text" else "input": text}


class CompletionParts:
    """The chunks of a streamed text completion, Anthropic's first API."""

    def __init__(self) -> None:
        self.complete = False
        self._kept = Kept()
        self._last: Any = None

    @property
    def cut(self) -> bool:
        return self._kept.cut

    def saw(self, chunk: Any) -> bool:
        self._last = chunk
        self._kept.add("text", chunk.completion or "")
        self.complete = chunk.stop_reason is not None
        return bool(chunk.completion)

    def answer(self) -> Any:
        names = ("id", "model", "stop_reason")
        return {
            **{name: field(self._last, name) for name in names},
            "completion": self._kept.text("text"),
        }
