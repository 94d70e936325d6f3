"""Recording what LangChain's models are asked, as a callback handler.

from flowledger.integrations.langchain import CallbackHandler

chain.invoke(question, config={"callbacks": [CallbackHandler()]})
"""

import time
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage, convert_to_openai_messages
from langchain_core.outputs import LLMResult

from flowledger.capture import recorder
from flowledger.capture.reading import field, message_text, read_usage, tool_call
from flowledger.integrations import nesting
from flowledger.integrations.openai_reading import ENDPOINTS
from flowledger.integrations.sdk_call import Recording, never_raises
from flowledger.integrations.sdk_endpoints import Fields, always
from flowledger.records import Kind, Usage

__all__ = ["CallbackHandler"]

SETTINGS = ("temperature", "max_tokens", "stop", "tools", "tool_choice", "top_p", "seed")
TOLD = {
    "model": ("model_name", "model"),
    "reason": ("finish_reason", "stop_reason"),
    "usage": ("token_usage", "usage"),
}


class CallbackHandler(BaseCallbackHandler):
    """Records each call of a chat model or LLM, with its chain's user and reason.

    A call that a wrapped client inside the model has recorded already is not recorded again. Runs
    in the thread that calls, so that the context there is the one recorded.
    """

    run_inline = True

    def __init__(self) -> None:
        super().__init__()
        self._running: dict[UUID, Recording] = {}

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        **about: Any,
    ) -> None:
        """A chat model is asked."""
        self._begin(run_id, messages, about)

    def on_llm_start(
        self, serialized: dict[str, Any], prompts: list[str], *, run_id: UUID, **about: Any
    ) -> None:
        """A model that continues text is asked."""
        self._begin(run_id, prompts, about)

    @never_raises
    def on_llm_new_token(self, token: Any, *, run_id: UUID, **about: Any) -> None:
        """A piece of a stream came."""
        call = self._running.get(run_id)
        if call is not None:
            recorder.first_token(call.pending)

    @never_raises
    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **about: Any) -> None:
        """The answer is there."""
        call = self._running.pop(run_id, None)
        if call is not None and not any(map(nesting.knows, _ids(response))):
            call.answered(response)

    @never_raises
    def on_llm_error(self, error: BaseException, *, run_id: UUID, **about: Any) -> None:
        """It raised, or its stream was left."""
        call = self._running.pop(run_id, None)
        if call is None or nesting.knows(error=error):
            return
        parts = _Whole(about.get("response"))
        if isinstance(error, GeneratorExit):
            call.left(parts, time.perf_counter_ns())
        else:
            call.failed(error, parts)

    @never_raises
    def _begin(self, run_id: UUID, prompts: list[Any], about: dict[str, Any]) -> None:
        if recorder.active() is not None:
            self._running[run_id] = _recording(prompts[0], about)


def _recording(prompt: Any, about: dict[str, Any]) -> Recording:
    told = about.get("metadata") or {}
    asked = about.get("invocation_params") or {}
    body = {name: asked[name] for name in SETTINGS if asked.get(name) is not None}
    body["model"] = told.get("ls_model_name") or field(asked, "model", "model_name")
    body["messages"] = prompt if isinstance(prompt, str) else convert_to_openai_messages(prompt)
    endpoint = ENDPOINTS["chat/completions"]._replace(operation="langchain", read=_read)
    if isinstance(prompt, str):
        endpoint = endpoint._replace(kind=always(Kind.COMPLETION), results=lambda body: [])
    return Recording(endpoint, body, {"provider": told.get("ls_provider")}, list)


class _Whole:
    """What came of an answer before its end, in the form of `Parts`."""

    complete = False
    cut = False

    def __init__(self, response: Any) -> None:
        self._response = response

    def saw(self, chunk: Any) -> bool:
        return False

    def answer(self) -> Any:
        return self._response


def _generations(response: Any) -> list[Any]:
    return list((field(response, "generations") or [[]])[0])


def _messages(response: Any) -> list[Any]:
    found = (field(generation, "message") for generation in _generations(response))
    return [message for message in found if message is not None]


def _told(response: Any) -> list[Any]:
    """Where the model's package keeps what the provider says besides its answer."""
    told = [field(message, "response_metadata") for message in _messages(response)]
    return [*told, field(response, "llm_output")]


def _ids(response: LLMResult) -> list[Any]:
    return [field(one, "id") for one in (*_told(response), *_messages(response))]


def _read(response: Any) -> Fields:
    messages = _messages(response)
    texts = [text for text in map(_text, _generations(response)) if text]
    told = {
        name: next(filter(None, (field(one, *keys) for one in _told(response))), None)
        for name, keys in TOLD.items()
    }
    return {
        "response": texts if len(texts) > 1 else texts[0] if texts else None,
        "model": told["model"],
        "usage": _usage(messages) or read_usage(told["usage"]),
        "tool_calls": _tool_calls(messages),
        "params": {"finish_reason": told["reason"]} if told["reason"] else {},
    }


def _text(generation: Any) -> str | None:
    message = field(generation, "message")
    text: str | None = field(generation, "text") if message is None else message_text(message)
    return text


def _usage(messages: list[Any]) -> Usage | None:
    counted = [one for one in (field(m, "usage_metadata") for m in messages) if one]
    if not counted:
        return None
    given, made = counted[-1].get("input_token_details"), counted[-1].get("output_token_details")
    return Usage(
        input_tokens=field(counted[-1], "input_tokens"),
        output_tokens=field(counted[-1], "output_tokens"),
        cached_input_tokens=field(given, "cache_read"),
        cache_write_tokens=field(given, "cache_creation"),
        input_audio_tokens=field(given, "audio"),
        reasoning_tokens=field(made, "reasoning"),
        output_audio_tokens=field(made, "audio"),
    )


def _tool_calls(messages: list[Any]) -> list[Any]:
    asking = [message for message in messages if field(message, "tool_calls")]
    written = convert_to_openai_messages(asking) if asking else []
    return [tool_call(one) for message in written for one in field(message, "tool_calls") or ()]
