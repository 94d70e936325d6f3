"""Prompts under version control in MLflow's registry, tried side by side, and how they do."""

import hashlib
from collections.abc import Sequence
from typing import Any

import httpx

import flowledger
from flowledger.capture.prompts import PromptTemplate
from services.common.mlflow_config import tracking_uri

__all__ = ["PromptModelRegistry", "choose"]

SECONDS = 1.0
IS_PROMPT = {"key": "mlflow.prompt.is_prompt", "value": "true"}
TEXT = "mlflow.prompt.text"


class PromptModelRegistry:
    """MLflow's prompt registry. Each method raises `httpx.HTTPError` where it does not answer."""

    def register(self, name: str, template: str) -> int:
        """Add a version of a prompt, with variables as `{{name}}`; its number."""
        made = _ask("POST", "registered-models/create", json={"name": name, "tags": [IS_PROMPT]})
        if made.is_error and made.json().get("error_code") != "RESOURCE_ALREADY_EXISTS":
            made.raise_for_status()
        tags = [IS_PROMPT, {"key": TEXT, "value": template}]
        version = {"name": name, "source": "prompt-template", "tags": tags}
        added = _ask("POST", "model-versions/create", json=version).raise_for_status().json()
        return int(added["model_version"]["version"])

    def load(self, name: str, version: int) -> PromptTemplate:
        """One version of a prompt; what is asked with it carries its name and version."""
        asked = {"name": name, "version": str(version)}
        found = _ask("GET", "model-versions/get", params=asked).raise_for_status().json()
        tags = {tag["key"]: tag["value"] for tag in found["model_version"]["tags"]}
        return flowledger.prompt(name, tags[TEXT], version=version)

    def performance(self, name: str, days: int = 30) -> dict[str, dict[str, Any]]:
        """How each version of a prompt did: runs, success rate, response time and cost."""
        asked = {"days": str(days), "tag": f"prompt_name={name}"}
        url = f"{tracking_uri()}/api/analytics/mlflow/prompt-analysis"
        told = httpx.get(url, params=asked, timeout=SECONDS).raise_for_status().json()
        return {one["prompt_version"]: one for one in told["prompt_analysis"]}


def choose(versions: Sequence[PromptTemplate], key: str) -> PromptTemplate:
    """An A/B test: one of these versions, always the same for the same user or session."""
    digest = hashlib.sha256(key.encode()).digest()
    return versions[digest[0] % len(versions)]


def _ask(method: str, path: str, **what: Any) -> httpx.Response:
    return httpx.request(method, f"{tracking_uri()}/api/2.0/mlflow/{path}", timeout=SECONDS, **what)
