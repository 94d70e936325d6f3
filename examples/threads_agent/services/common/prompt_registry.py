"""Prompts under version control in MLflow's registry, tried side by side, and how they perform."""

import hashlib
from collections.abc import Sequence
from typing import Any

import httpx

import flowledger
from flowledger.capture.prompts import PromptTemplate
from services.common.mlflow_config import tracking_uri

__all__ = ["PromptModelRegistry"]

SECONDS = 1.0
IS_PROMPT = {"key": "mlflow.prompt.is_prompt", "value": "true"}
TEXT = "mlflow.prompt.text"
MODELS = "/api/2.0/mlflow/registered-models"
VERSIONS = "/api/2.0/mlflow/model-versions"
ANALYSIS = "/api/analytics/mlflow/prompt-analysis"
THERE = "RESOURCE_ALREADY_EXISTS"


class PromptModelRegistry:
    """MLflow's prompt registry at the server that calls are tracked by."""

    def __init__(self) -> None:
        self._loaded: dict[tuple[str, int], PromptTemplate] = {}

    def register(self, name: str, template: str) -> int:
        """Add a version of a prompt, with variables as `{{name}}`; its number.

        Raises:
            httpx.HTTPError: the server does not answer, or refuses it.
        """
        made = self._ask("POST", f"{MODELS}/create", json={"name": name, "tags": [IS_PROMPT]})
        if made.is_error and made.json().get("error_code") != THERE:
            made.raise_for_status()
        tags = [IS_PROMPT, {"key": TEXT, "value": template}]
        version = {"name": name, "source": "prompt-template", "tags": tags}
        added = self._ask("POST", f"{VERSIONS}/create", json=version).raise_for_status()
        return int(added.json()["model_version"]["version"])

    def load(self, name: str, version: int) -> PromptTemplate:
        """One version of a prompt; what is asked with it carries its name and version.

        Raises:
            httpx.HTTPError: the server does not answer, or has no such version.
        """
        if (name, version) not in self._loaded:  # a version never changes
            asked = {"name": name, "version": str(version)}
            found = self._ask("GET", f"{VERSIONS}/get", params=asked).raise_for_status()
            tags = {tag["key"]: tag["value"] for tag in found.json()["model_version"]["tags"]}
            self._loaded[name, version] = flowledger.prompt(name, tags[TEXT], version=version)
        return self._loaded[name, version]

    def choose(self, name: str, versions: Sequence[int], key: str) -> PromptTemplate:
        """One of these versions, the same each time for the same key: an A/B test.

        Args:
            name: of the prompt.
            versions: to try side by side, in equal parts.
            key: what is split, such as a user or a session.

        Raises:
            httpx.HTTPError: as for `load`.
        """
        digest = hashlib.sha256(f"{name}/{key}".encode()).digest()
        return self.load(name, versions[int.from_bytes(digest[:8], "big") % len(versions)])

    def performance(self, name: str, days: int = 30) -> dict[str, dict[str, Any]]:
        """How each version of a prompt did: runs, success rate, response time and cost.

        Raises:
            httpx.HTTPError: the server does not answer.
        """
        asked = {"days": str(days), "tag": f"prompt_name={name}"}
        told = self._ask("GET", ANALYSIS, params=asked).raise_for_status().json()
        return {one["prompt_version"]: one for one in told["prompt_analysis"]}

    def _ask(self, method: str, path: str, **what: Any) -> httpx.Response:
        return httpx.request(method, f"{tracking_uri()}{path}", timeout=SECONDS, **what)
