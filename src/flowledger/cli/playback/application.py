"""The small application that is recorded: what somebody who uses flowledger writes.

It knows nothing of journals, collectors or MLflow: it wraps its client, says who asks and why, and
tracks a function of its own.
"""

from typing import Any, NamedTuple

import openai

import flowledger
from flowledger.cli.playback.scenario import Request

__all__ = ["Application", "client_for"]

ENVIRONMENT = "demo"
PROMPT_VERSION = "3"
TIMEOUT_SECONDS = 60.0
SHORT_ANSWER = 40


def client_for(stub_url: str | None) -> openai.OpenAI:
    """A recorded client of the stub server, or of what the environment names where it is None."""
    if stub_url is None:
        return flowledger.wrap(openai.OpenAI(timeout=TIMEOUT_SECONDS, max_retries=1))
    # A proxy in the environment is not for an address on this machine.
    direct = openai.DefaultHttpxClient(trust_env=False)
    stub = openai.OpenAI(
        base_url=stub_url,
        api_key="stub",
        http_client=direct,
        timeout=TIMEOUT_SECONDS,
        max_retries=0,
    )
    return flowledger.wrap(stub)


class Application:
    """Answers requests with one call of a model each. May be used by threads at the same time.

    Args:
        client: recorded.
        model: a real one, asked for everything, with short prompts and answers; None leaves each
            feature its own, of which the stub server has any.
    """

    def __init__(self, client: Any, model: str | None = None) -> None:
        self._client = client
        self._model = model

    def handle(self, request: Request) -> bool:
        """Answer one request; whether that worked. The error is in the ledger already."""
        feature = request.feature
        with flowledger.context(
            feature=feature.name,
            user_id=request.user_id,
            user_role=request.user_role,
            session_id=request.session_id,
            persona_id=feature.persona,
            audit_reason=feature.audit_reason,
            environment=ENVIRONMENT,
            prompt_name=f"{feature.name}_system",
            prompt_version=PROMPT_VERSION,
        ):
            try:
                _Turn(self._client, request, self._model).answer()
            except openai.OpenAIError:
                return False
        return True


class _Turn(NamedTuple):
    """One request and how it is answered."""

    client: Any
    request: Request
    model: str | None

    def answer(self) -> str:
        """The answer, in the way of its feature; a real model is asked for text alone."""
        way = self.request.feature.way
        if way == "tracked":
            return self.answer_from_history(self.request.question)
        if way == "stream":
            return self.ask_in_a_stream()
        return self.embed() if way == "embed" and self.model is None else self.ask()

    @flowledger.track(operation="answer_from_history")
    def answer_from_history(self, question: str) -> str:
        """A function of the application's own around the call of its client."""
        return self.ask()

    def ask(self) -> str:
        answer = self.client.chat.completions.create(**self._chat())
        return answer.choices[0].message.content or ""

    def ask_in_a_stream(self) -> str:
        chunks = self.client.chat.completions.create(**self._chat(), stream=True)
        texts = (chunk.choices[0].delta.content for chunk in chunks if chunk.choices)
        return "".join(filter(None, texts))

    def embed(self) -> str:
        asked = f"{self.request.question} {self.request.padding}"
        model = self.request.feature.model
        self.client.embeddings.create(model=model, input=asked, extra_headers=self._steering())
        return ""

    def _chat(self) -> dict[str, Any]:
        """The arguments of a chat: as long as the trace says at the stub, short at a real model."""
        feature, question = self.request.feature, self.request.question
        if self.model is not None:
            messages = _messages(feature.system, question)
            return {"model": self.model, "messages": messages, "max_tokens": SHORT_ANSWER}
        return {
            "model": feature.model,
            "messages": _messages(feature.system, f"{question} {self.request.padding}".strip()),
            "temperature": feature.temperature,
            "extra_headers": self._steering(),
        }

    def _steering(self) -> dict[str, str]:
        """What the stub server is told: `flowledger.testing.llm` explains it."""
        told = {"x-stub-tokens": str(self.request.answer_tokens)}
        if self.request.status is not None:
            told["x-stub-status"] = str(self.request.status)
        return told


def _messages(system: str, text: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": system}, {"role": "user", "content": text}]
