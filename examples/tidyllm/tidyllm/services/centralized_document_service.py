"""The documents that chats answer from: one folder, known to every process."""

from pathlib import Path

__all__ = ["CentralizedDocumentService"]

FOLDER = Path(__file__).parents[2] / "documents"
KINDS = (".md", ".txt", ".html", ".pdf")


class CentralizedDocumentService:
    """Keeps the passages of a folder's documents where chats find them."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.folder = folder

    def refresh(self) -> list[str]:
        """Read what is new or has changed, and say which documents that was.

        Raises:
            DocumentError: a document cannot be read, or not be kept.
        """
        from flowledger.chat.library import opened  # not needed before a chat is
        from flowledger.chat.retrieval import as_document

        library = opened()
        known = {one.source: (one.digest, one.embedding) for one in library.listed()}
        found = (path for path in sorted(self.folder.rglob("*")) if path.suffix in KINDS)
        changed = [document for path in found if (document := as_document(path, known))]
        library.add(changed)
        return [document.source for document in changed]
