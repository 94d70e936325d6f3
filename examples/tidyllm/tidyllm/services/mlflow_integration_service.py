"""The service behind the record: whether it works, what it holds, and logging by hand."""

import weakref
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import flowledger
from flowledger.config import load, switched_on, without_password
from flowledger.errors import ConfigError, FlowledgerError, NotFound

if TYPE_CHECKING:
    from flowledger.questions import Ledger, Over

__all__ = ["MLflowIntegrationService"]

TABLES_SECONDS = 120  # an empty database gets MLflow's tables first


class MLflowIntegrationService:
    """Logs requests and answers for them; making one connects to nothing and cannot fail."""

    def __init__(self) -> None:
        self._ledger: Ledger | None = None
        self.problem: str | None = None

    def is_available(self) -> bool:
        """Whether requests are recorded; they are also while the database is away."""
        try:
            return load().enabled
        except ConfigError as exc:
            self.problem = str(exc)
            return False

    @property
    def is_connected(self) -> bool:
        """Whether the database answers now; if not, `problem` says why."""
        try:
            self._opened().revision()
        except FlowledgerError as exc:
            self.problem = str(exc)
            return False
        self.problem = None
        return True

    def log_llm_request(
        self,
        model: str,
        prompt: str,
        response: str,
        processing_time: float,
        token_usage: dict[str, int] | None = None,
        success: bool = True,
        **more: Any,
    ) -> str | None:
        """Record a request that was made elsewhere, and return its MLflow run id.

        Returns at once and never raises; None says that recording is switched off.

        Args:
            model, prompt, response: what was asked of whom.
            processing_time: milliseconds.
            token_usage: `input` and `output`; their sum is the total.
            success: whether it worked.
            more: `user_id`, `session_id`, `audit_reason` and `error`, or what else
                `flowledger.record` takes.
        """
        if not switched_on():
            return None
        tokens = token_usage or {}
        return flowledger.record(
            operation="log_llm_request",
            model=model,
            prompt=prompt,
            response=response,
            input_tokens=tokens.get("input"),
            output_tokens=tokens.get("output"),
            latency_ms=processing_time,
            success=success,
            **more,
        )

    def statistics(self, user_id: str | None = None) -> dict[str, Any]:
        """Reliability, speed, tokens and cost of all requests there are, or of one user's."""
        sums = self.requests(user_id).sums()
        return {
            "requests": sums.calls,
            "success_rate": sums.success_rate,
            "avg_processing_time_ms": sums.mean_latency_ms,
            "input_tokens": sums.input_tokens,
            "output_tokens": sums.output_tokens,
            "total_tokens": sums.total_tokens,
            "cost_usd": sums.known_cost_usd,
            "requests_without_price": sums.unpriced,
        }

    def health_check(self) -> dict[str, Any]:
        """Everything about the service that somebody on call wants to know."""
        available, connected = self.is_available(), self.is_connected
        return {
            "status": "healthy" if available and connected else "degraded",
            "available": available,
            "connected": connected,
            "problem": self.problem,
            "backend": without_password(load().tracking_uri) if available else None,
            **(self._contents() if connected else {}),
        }

    def reconnect(self) -> bool:
        """Connect anew, by the settings as they are now; whether the database answers."""
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None
        return self.is_connected

    def requests(self, user_id: str | None = None) -> "Over":
        """Questions about all requests; looking documents up is recorded too, and is none."""
        from flowledger.questions import Filters

        return self.ledger().over(filters=Filters(kind="chat", user_id=user_id))

    def ledger(self) -> "Ledger":
        """Questions to the database, once it has all that this process recorded.

        Raises:
            FlowledgerError: the database does not answer.
        """
        with suppress(NotFound):  # a new database is made when the first request is delivered
            self._opened().revision()  # says at once when it does not answer
        flowledger.flush(TABLES_SECONDS)
        return self._opened()

    def _opened(self) -> "Ledger":
        from flowledger.questions import Ledger  # a chat must not wait for its import

        if self._ledger is None:
            self._ledger = Ledger(load().tracking_uri)
            weakref.finalize(self, self._ledger.close)
        return self._ledger

    def _contents(self) -> dict[str, Any]:
        try:
            size, losses = self._opened().size(), self._opened().losses()
        except NotFound:  # nothing was recorded yet
            return {"records": 0, "last_record": None, "lost": 0}
        last = size.last_ms and datetime.fromtimestamp(size.last_ms / 1000, UTC).isoformat()
        return {"records": size.records, "last_record": last, "lost": losses.dropped}
