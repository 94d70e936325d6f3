"""What tidyllm is made of: chat, documents, and the service that keeps the record."""

from tidyllm.services.centralized_document_service import CentralizedDocumentService
from tidyllm.services.mlflow_integration_service import MLflowIntegrationService
from tidyllm.services.unified_chat_manager import UnifiedChatManager

__all__ = ["CentralizedDocumentService", "MLflowIntegrationService", "UnifiedChatManager"]
