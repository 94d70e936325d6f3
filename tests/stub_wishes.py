"""What tests of every SDK ask of the stub server."""

import asyncio
from typing import Any

from flowledger.testing.llm import StubLLM

__all__ = ["arrived", "steer"]


def steer(**wishes: object) -> dict[str, Any]:
    """What the stub server is asked to do with a request."""
    headers = {f"x-stub-{name.replace('_', '-')}": str(value) for name, value in wishes.items()}
    return {"extra_headers": headers}


async def arrived(stub: StubLLM, count: int) -> None:
    """Wait until the stub has got so many requests."""
    while len(stub.requests) < count:
        await asyncio.sleep(0.01)
