"""TidyLLM: one chat call in four modes, and a record of who asked what and why."""

import os
from pathlib import Path

# Read by flowledger when the first call is made; a file that the environment names goes before.
os.environ.setdefault("FLOWLEDGER_CONFIG", str(Path(__file__).parents[1] / "settings.yaml"))

from tidyllm.services import UnifiedChatManager

__all__ = ["chat"]

chat = UnifiedChatManager().chat
