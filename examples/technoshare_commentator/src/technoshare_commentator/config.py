"""Settings: the environment, and `.env` in the working directory for what it does not say."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from flowledger.config import load


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that can be set, but for what MLflow and OpenAI read themselves.

    model: of the analysis. slack_url, slack_token: where and as whom comments are posted.
    jobs: the file of the queue, in the folder TECHNOSHARE_JOBS. fetch_through: a server that has
    copies of pages by host and path.
    """

    model: str
    slack_url: str
    slack_token: str
    jobs: Path
    fetch_through: str

    @classmethod
    def read(cls) -> Self:
        """The settings in force."""
        read_env(Path(".env"))
        get = os.environ.get
        jobs = get("TECHNOSHARE_JOBS") or Path(load().home, "examples", "technoshare_commentator")
        return cls(
            model=get("TECHNOSHARE_MODEL", "gpt-4o-mini"),
            slack_url=get("SLACK_API_URL", "https://slack.com/api"),
            slack_token=get("SLACK_BOT_TOKEN", ""),
            jobs=Path(jobs, "jobs.db"),
            fetch_through=get("TECHNOSHARE_FETCH_THROUGH", ""),
        )


def read_env(path: Path) -> None:
    """Set what the file says and the environment does not."""
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    for line in lines:
        name, said, value = line.partition("=")
        if said and not line.startswith("#"):
            os.environ.setdefault(name.strip(), value.strip())
