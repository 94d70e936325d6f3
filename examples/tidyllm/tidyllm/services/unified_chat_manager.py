"""Every chat goes through here, whichever of the four modes answers it."""

import logging
from typing import Any, Literal

import flowledger
from flowledger.errors import DocumentError
from tidyllm.services.centralized_document_service import CentralizedDocumentService

__all__ = ["UnifiedChatManager"]

logger = logging.getLogger(__name__)


class UnifiedChatManager:
    """Chats that are recorded with who asked and why.

    Args:
        documents: what `rag` and `hybrid` answer from.
    """

    def __init__(self, documents: CentralizedDocumentService | None = None) -> None:
        self._documents = documents or CentralizedDocumentService()

    def chat(
        self,
        message: str,
        chat_type: Literal["direct", "dspy", "rag", "hybrid"] = "direct",
        *,
        reasoning: bool = False,
        user_id: str | None = None,
        session_id: str | None = None,
        audit_reason: str | None = None,
        **options: Any,
    ) -> Any:
        """Ask a model, and have the call recorded.

        Args:
            message: the question.
            chat_type: asked once, with DSPy's reasoning, from documents, or whichever fits.
            reasoning: return `content`, `audit_trail` and `token_usage` instead of the text alone.
            user_id, session_id, audit_reason: who asks, in which conversation, and why.
            options: what else `flowledger.chat` takes, such as `model` and `temperature`.

        Raises:
            FlowledgerError: the chat failed; with `reasoning` its audit trail tells instead.
        """
        if chat_type in ("rag", "hybrid"):
            self._refresh_documents()
        return flowledger.chat(
            message,
            chat_type,
            reasoning=reasoning,
            user_id=user_id,
            session_id=session_id,
            audit_reason=audit_reason,
            **options,
        )

    def _refresh_documents(self) -> None:
        try:
            self._documents.refresh()
        except DocumentError as exc:  # what is known already still answers
            logger.warning("Centralized document service not available: %s", exc)
