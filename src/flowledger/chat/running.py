"""Runs a method's steps, in this thread or in an event loop: the only two places that wait.

A method is a generator: it yields a step and is sent what came of it, or has thrown into it what
went wrong. So each method is written once. Pieces of a streamed answer are yielded as they come,
outside of the talk, since what the caller does in between is no part of it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from functools import partial
from typing import Any, TypeAlias

from flowledger.chat import reasoning
from flowledger.chat.failures import translated
from flowledger.chat.providers import Provider, find, priced
from flowledger.chat.steps import Answer, Complete, Reason, Reply, Step, Work
from flowledger.chat.talk import Talk
from flowledger.config import Settings

__all__ = ["Method", "Runner"]

Method: TypeAlias = Generator[Step, Any, Answer]
Done: TypeAlias = Callable[[], Step]


class Runner:
    """Takes the steps of one chat.

    Args:
        settings: the settings in force.
        talk: whose steps they are.
        stream: yield the pieces of answers as they come.
    """

    def __init__(self, settings: Settings, talk: Talk, stream: bool) -> None:
        self._settings = settings
        self._talk = talk
        self._stream = stream
        self.answer: Answer | None = None

    def run(self, method: Method) -> Iterator[str]:
        """Every step in this thread; `answer` is there in the end."""
        advance: Done = partial(next, method)
        while (step := self._advanced(advance)) is not None:
            try:
                if isinstance(step, Complete) and self._stream:
                    outcome = yield from self._streamed(step)
                else:
                    with self._talk.running():
                        outcome = self._taken(step)
                advance = partial(method.send, outcome)
            except Exception as exc:  # noqa: BLE001 - the method's own to handle
                advance = partial(method.throw, exc)

    async def run_async(self, method: Method) -> AsyncIterator[str]:
        """Every step in this event loop; work that would block it goes to a thread."""
        advance: Done = partial(next, method)
        while (step := self._advanced(advance)) is not None:
            try:
                outcome: Any = None
                if isinstance(step, Complete) and self._stream:
                    opened = _Opened(self, self._talk, find(step.model, self._settings), step)
                    async for piece in opened.pieces_async():
                        yield piece
                    outcome = opened.reply()
                else:
                    with self._talk.running():
                        outcome = await self._taken_async(step)
                advance = partial(method.send, outcome)
            except Exception as exc:  # noqa: BLE001 - the method's own to handle
                advance = partial(method.throw, exc)

    def _advanced(self, advance: Done) -> Step | None:
        """The next step, or None when the method has its answer."""
        try:
            with self._talk.running():
                return advance()
        except StopIteration as stop:
            self.answer = stop.value
            return None

    def _taken(self, step: Step) -> Any:
        if isinstance(step, Work):
            return step.run()
        if isinstance(step, Reason):
            return reasoning.reason(step, self.complete)
        return self.complete(step)

    async def _taken_async(self, step: Step) -> Any:
        if isinstance(step, Work):
            return await asyncio.to_thread(step.run)
        if isinstance(step, Reason):
            return await reasoning.areason(step, self.acomplete)
        return await self.acomplete(step)

    def complete(self, step: Complete) -> Reply:
        """Ask a model once.

        Raises:
            ProviderError: it did not answer.
        """
        provider = find(step.model, self._settings)
        ask = self.asking(provider, step, provider.client(), stream=False)
        try:
            answer = ask()
        except Exception as exc:
            raise translated(exc, provider) from exc
        return self.read(partial(provider.speaks.read, answer), provider)

    async def acomplete(self, step: Complete) -> Reply:
        """Ask a model once, without blocking the event loop.

        Raises:
            ProviderError: it did not answer.
        """
        provider = find(step.model, self._settings)
        ask = self.asking(provider, step, provider.async_client(), stream=False)
        try:
            answer = await ask()
        except Exception as exc:
            raise translated(exc, provider) from exc
        return self.read(partial(provider.speaks.read, answer), provider)

    def _streamed(self, step: Complete) -> Generator[str, None, Reply]:
        opened = _Opened(self, self._talk, find(step.model, self._settings), step)
        yield from opened.pieces()
        return opened.reply()

    def asking(
        self, provider: Provider, step: Complete, client: Any, *, stream: bool
    ) -> Callable[[], Any]:
        """What sends this request; from here on the client records it, whatever comes."""
        self._talk.sent = True
        self._talk.hides.append(provider.hidden)
        speaks = provider.speaks
        return partial(speaks.create(client), **speaks.arguments(provider.model, step, stream))

    def read(self, read: Callable[[], Reply], provider: Provider) -> Reply:
        """What an answer says.

        Where it says nothing or has no end, its client saw nothing wrong: then the chat is recorded
        as failed by itself.
        """
        try:
            return priced(read(), provider)
        except Exception as exc:
            self._talk.sent = False
            raise translated(exc, provider) from exc


class _Opened:
    """A streamed answer of one model."""

    def __init__(self, runner: Runner, talk: Talk, provider: Provider, step: Complete) -> None:
        self._runner = runner
        self._talk = talk
        self._step = step
        self._provider = provider
        self._gathering = self._provider.speaks.gathering()
        self._begun = False

    def pieces(self) -> Iterator[str]:
        client = self._provider.client()
        try:
            with self._talk.running():
                stream = self._runner.asking(self._provider, self._step, client, stream=True)()
            with stream:
                for chunk in stream:
                    if piece := self._piece(chunk):
                        yield piece
        except Exception as exc:
            raise translated(exc, self._provider, self._begun) from exc

    async def pieces_async(self) -> AsyncIterator[str]:
        client = self._provider.async_client()
        try:
            with self._talk.running():
                ask = self._runner.asking(self._provider, self._step, client, stream=True)
                stream = await ask()
            async with stream:
                async for chunk in stream:
                    if piece := self._piece(chunk):
                        yield piece
        except Exception as exc:
            raise translated(exc, self._provider, self._begun) from exc

    def _piece(self, chunk: Any) -> str:
        piece = self._gathering.add(chunk)
        self._begun = self._begun or bool(piece)
        return piece

    def reply(self) -> Reply:
        return self._runner.read(self._gathering.reply, self._provider)
