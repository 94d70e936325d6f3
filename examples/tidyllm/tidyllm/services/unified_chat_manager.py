"""Every chat goes through here, whichever of the four modes answers it."""

import logging
from typing import TYPE_CHECKING, Any

import flowledger
from flowledger.errors import DocumentError
from tidyllm.services.centralized_document_service import CentralizedDocumentService

if TYPE_CHECKING:
    from flowledger.chat.steps import ChatType

__all__ = ["UnifiedChatManager"]

logger = logging.getLogger(__name__)


class UnifiedChatManager:
    """Chats that are recorded with who asked and why."""

    def __init__(self) -> None:
        self._documents = CentralizedDocumentService()

    def chat(self, message: str, chat_type: "ChatType" = "direct", **options: Any) -> Any:
        """Ask a model, and have the call recorded.

        Args:
            message: the question.
            chat_type: asked once, with DSPy's reasoning, from documents, or whichever fits.
            options: `user_id`, `session_id` and `audit_reason` say who asks, in which conversation
                and why; with `reasoning=True` a dictionary with `audit_trail` and `token_usage`
                comes back. `flowledger.chat` has more.

        Raises:
            FlowledgerError: the chat failed; with `reasoning` its audit trail tells instead.
        """
        if chat_type in ("rag", "hybrid"):
            try:
                self._documents.refresh()
            except DocumentError as exc:  # what is known already still answers
                logger.warning("Centralized document service not available: %s", exc)
        return flowledger.chat(message, chat_type, **options)
