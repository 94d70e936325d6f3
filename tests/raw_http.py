"""Requests without a client, to see what is really sent back."""

import json
from typing import Any

import urllib3

__all__ = ["request"]


def request(url: str, path: str, body: Any = None) -> tuple[int, str]:
    """POST the body as JSON, or GET without one: the status and the text of the answer."""
    data = None if body is None else json.dumps(body)
    with urllib3.PoolManager() as pool:
        answer = pool.request("POST" if data else "GET", url + path, body=data)
        return answer.status, answer.data.decode()
