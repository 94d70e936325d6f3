"""Batches of OpenAI and of Anthropic: done as soon as they are sent."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from flowledger.testing.stub import anthropic
from flowledger.testing.stub.answers import seed_of
from flowledger.testing.stub.said import CREATED, Answer, encode
from flowledger.testing.stub.steering import Refusal

__all__ = ["Batches"]

MOST = 1000
LINES = "application/x-jsonl"
_BEGUN = datetime.fromtimestamp(CREATED, UTC)
_Lines = list[dict[str, Any]]


class Batches:
    """The files and batches sent so far; `answered` gives the answer to a request, or refuses."""

    def __init__(self, answered: Callable[[str, dict[str, Any]], bytes]) -> None:
        self._answered = answered
        self._kept: OrderedDict[str, bytes] = OrderedDict()

    def answer(self, method: str, path: str, fields: Any, file: bytes) -> Answer:
        """Answer a request to the endpoints of files and batches."""
        parts = path.split("/")[2:]
        match method, parts:
            case "POST", ["files"]:
                return Answer(body=self._uploaded(fields or {}, file))
            case _, ["files", name, "content"]:
                return Answer(body=self._found(name), media_type="application/octet-stream")
            case "POST", ["batches"]:
                return Answer(body=self._batch(fields or {}))
            case "POST", ["messages", "batches"]:
                return Answer(body=self._message_batch(fields or {}, path))
            case _, ["messages", "batches", name, "results"]:
                return Answer(body=self._found(f"{name} results"), media_type=LINES)
        return Answer(body=self._found(parts[-1]))

    def _keep(self, name: str, content: bytes) -> bytes:
        self._kept[name] = content
        if len(self._kept) > MOST:
            self._kept.popitem(last=False)
        return content

    def _found(self, name: str) -> bytes:
        if name not in self._kept:
            raise Refusal(404, f"No such object: {name}", param="id")
        return self._kept[name]

    def _uploaded(self, fields: dict[str, Any], content: bytes) -> bytes:
        # Uploaded again, the same file is another one.
        name = f"file-{seed_of(content.decode(errors='replace'), len(self._kept)):016x}"
        self._keep(name, content)
        return encode(
            {
                "id": name,
                "object": "file",
                "bytes": len(content),
                "created_at": CREATED,
                "filename": (fields.get("file") or {}).get("filename"),
                "purpose": fields.get("purpose"),
                "status": "processed",
            }
        )

    def _batch(self, fields: dict[str, Any]) -> bytes:
        """OpenAI's: one file of what worked, one of what did not."""
        source, endpoint = str(fields.get("input_file_id")), str(fields.get("endpoint"))
        asked: _Lines = [msgspec.json.decode(line) for line in self._found(source).splitlines()]
        name = f"batch_{seed_of(source):016x}"
        lines = [self._line(name, endpoint, one) for one in asked]
        worked = [line for line in lines if line["response"]["status_code"] == 200]
        failed = [line for line in lines if line not in worked]
        batch = {
            "id": name,
            "object": "batch",
            "endpoint": endpoint,
            "errors": None,
            "input_file_id": source,
            "completion_window": fields.get("completion_window"),
            "status": "completed",
            "output_file_id": self._lines(f"{name}_output", worked),
            "error_file_id": self._lines(f"{name}_error", failed),
            "created_at": CREATED - 60,
            "completed_at": CREATED + 60,
            "request_counts": {
                "total": len(lines),
                "completed": len(worked),
                "failed": len(failed),
            },
            "metadata": fields.get("metadata"),
        }
        return self._keep(name, encode(batch))

    def _line(self, batch: str, path: str, one: dict[str, Any]) -> dict[str, Any]:
        number = f"{seed_of(batch, one['custom_id']):016x}"
        status, body = 200, b""
        try:
            body = self._answered(path, one["body"])
        except Refusal as refused:
            status, body = refused.status, encode({"error": refused.error})
        response = {"status_code": status, "request_id": number, "body": msgspec.Raw(body)}
        return {
            "id": f"batch_req_{number}",
            "custom_id": one["custom_id"],
            "response": response,
            "error": None,
        }

    def _lines(self, name: str, lines: _Lines) -> str | None:
        if not lines:
            return None
        self._keep(f"file-{name}", b"".join(encode(line) + b"\n" for line in lines))
        return f"file-{name}"

    def _message_batch(self, fields: dict[str, Any], path: str) -> bytes:
        """Anthropic's: one stream of results."""
        requests: _Lines = fields.get("requests") or []
        if not requests:
            raise Refusal(400, "requests: Field required")
        name = f"msgbatch_{seed_of(requests, len(self._kept)):016x}"
        results = list(self._results(requests))
        kinds = [one["result"]["type"] for one in results]
        others = ("processing", "canceled", "expired")
        self._keep(f"{name} results", b"".join(encode(one) + b"\n" for one in results))
        batch = {
            "id": name,
            "type": "message_batch",
            "processing_status": "ended",
            "request_counts": {
                **dict.fromkeys(others, 0),
                **{kind: kinds.count(kind) for kind in ("succeeded", "errored")},
            },
            "created_at": _BEGUN.isoformat(),
            "expires_at": (_BEGUN + timedelta(days=1)).isoformat(),
            "ended_at": (_BEGUN + timedelta(minutes=1)).isoformat(),
            "archived_at": None,
            "cancel_initiated_at": None,
            "results_url": f"{path}/{name}/results",
        }
        return self._keep(name, encode(batch))

    def _results(self, requests: _Lines) -> Iterator[dict[str, Any]]:
        for one in requests:
            result: dict[str, Any] = {"type": "succeeded"}
            try:
                answer = self._answered(anthropic.MESSAGES, one["params"])
            except Refusal as refused:
                result = {"type": "errored", "error": anthropic.error_body(refused, "req_stub")}
            else:
                message = msgspec.json.decode(answer)
                message["usage"]["service_tier"] = "batch"
                result["message"] = message
            yield {"custom_id": one["custom_id"], "result": result}
