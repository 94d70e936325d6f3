"""The Helm chart, rendered by Helm's own engine."""

from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import yaml

__all__ = ["CHART", "CONFIGURATIONS", "defaults", "of_kind", "rendered"]

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "flowledger"
EXAMPLES = CHART / "examples"
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "default": {},
    **{
        name: yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())
        for name in ("postgres-s3", "basic-auth", "sqlite")
    },
}
Manifest = dict[str, Any]


@cache
def chart() -> helm_python.Chart:
    """The chart, loaded once."""
    helm_python.disable_logging()  # it tells of every symbolic link
    return helm_python.Chart.load(str(CHART))


def rendered(values: dict[str, Any], release: str = "demo") -> list[Manifest]:
    """Every manifest for these values, in the namespace `llm`."""
    texts = chart().render(values, name=release, namespace="llm")
    return [
        manifest
        for path, text in sorted(texts.items())
        if path.endswith(".yaml")
        for manifest in yaml.safe_load_all(text)
        if manifest
    ]


def of_kind(manifests: list[Manifest], kind: str) -> Manifest:
    """The one manifest of this kind."""
    [found] = [manifest for manifest in manifests if manifest["kind"] == kind]
    return found


def defaults() -> dict[str, Any]:
    """values.yaml."""
    values: dict[str, Any] = chart().values
    return values
