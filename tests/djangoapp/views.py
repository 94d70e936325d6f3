"""Views that record calls, at once and while their answer is streamed."""

from collections.abc import AsyncIterator, Iterator

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse

import flowledger


def tenant_of(request: HttpRequest) -> dict[str, str | None]:
    return {"tenant": request.headers.get("X-Tenant"), "feature": "chat"}


def ask(request: HttpRequest) -> HttpResponse:
    flowledger.record(model="gpt-4o", operation="ask")
    return HttpResponse()


async def aask(request: HttpRequest) -> HttpResponse:
    flowledger.record(model="gpt-4o", operation="ask")
    return HttpResponse()


def stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(_pieces())


async def astream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(_apieces())


def _pieces() -> Iterator[str]:
    yield "a"
    flowledger.record(model="gpt-4o", operation="stream")


async def _apieces() -> AsyncIterator[str]:
    yield "a"
    flowledger.record(model="gpt-4o", operation="stream")
