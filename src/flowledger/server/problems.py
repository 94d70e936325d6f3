"""What a client is told when something goes wrong: one sentence, never a stack trace."""

import logging
import math
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException as StarletteHTTPException

from flowledger.errors import FlowledgerError, NotFound, QuestionError, StoreError

__all__ = [
    "COMMON",
    "Problem",
    "add_problem_handlers",
    "answer_to",
    "as_http",
    "busy",
    "documented",
    "unavailable",
]

RETRY_SECONDS = 1

_log = logging.getLogger("flowledger.server")


class Problem(BaseModel):
    """Why a request was not done, and what to change."""

    detail: str = Field(description="One sentence: what is wrong and what to send instead.")


def documented(**reasons: str) -> dict[int | str, dict[str, Any]]:
    """Error answers for a route's documentation, as in `documented(_404="no such run")`."""
    return {
        int(code[1:]): {"model": Problem, "description": text} for code, text in reasons.items()
    }


COMMON = documented(
    _400="The request cannot be read.",
    _401="Nobody, or nobody known, is asking; only with authentication.",
    _403="This host, origin, user or key may not do that.",
    _422="A value is not what it must be; the answer names it.",
    _500="A fault of the server; its log says more.",
    _503="The database does not answer now; `Retry-After` says when to try again.",
)


def busy(sentence: str) -> HTTPException:
    """429: too much at once; the client keeps what it has and comes back."""
    return HTTPException(429, sentence, {"Retry-After": str(RETRY_SECONDS)})


def unavailable(sentence: str) -> HTTPException:
    """503: the database is away; the client keeps what it has and comes back."""
    return HTTPException(503, sentence, {"Retry-After": str(RETRY_SECONDS)})


def answer_to(exc: HTTPException | StarletteHTTPException) -> JSONResponse:
    """The answer that carries this sentence."""
    return JSONResponse({"detail": exc.detail}, exc.status_code, exc.headers)


def add_problem_handlers(app: FastAPI) -> None:
    """Answer whatever goes wrong in this app's routes with a `Problem`."""
    app.add_exception_handler(StarletteHTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(FlowledgerError, _ours)
    app.add_exception_handler(Exception, _fault)


async def _refused(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, StarletteHTTPException)
    return answer_to(exc)


async def _invalid(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, RequestValidationError)
    sentences = [f"{_place(error['loc'])}: {error['msg']}" for error in exc.errors()]
    return JSONResponse({"detail": "; ".join(sentences)}, 422)


def _place(location: tuple[Any, ...]) -> str:
    return ".".join(str(part) for part in location[1:]) or str(location[0])


async def _ours(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, FlowledgerError)
    return answer_to(as_http(exc))


def as_http(exc: FlowledgerError) -> HTTPException:
    """What a client is told of an error of ours."""
    if isinstance(exc, NotFound):
        return HTTPException(404, str(exc))
    if isinstance(exc, QuestionError):
        return HTTPException(422, str(exc))
    if isinstance(exc, StoreError):
        _log.warning("the database cannot be used: %s", first_line(exc))
        return unavailable("the database does not answer now: try again later")
    return HTTPException(400, str(exc))


async def _fault(request: Request, exc: Exception) -> JSONResponse:
    return answer_to(HTTPException(500, "a fault of the server: its log says more"))


def first_line(exc: Exception) -> str:
    """What went wrong without the lines below, where a driver may quote the data."""
    return str(exc).partition("\n")[0][:300]


def seconds(value: float) -> int:
    """Seconds for people and `Retry-After`, never 0."""
    return max(1, math.ceil(value))
