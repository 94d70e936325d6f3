"""Quality gates: plain functions in an ordered list; each says what is wrong, or nothing."""

import re
from typing import Any

from .retrieval import Evidence

LEAST_COVERAGE = 0.6
LONGEST_TLDR = 300
_link = re.compile(r"https?://[^\s>)\"]+")


def has_evidence(evidence: Evidence, analysis: dict[str, Any]) -> str | None:
    """There is something that the comment can be about."""
    low = evidence.coverage < LEAST_COVERAGE
    return f"coverage is {evidence.coverage:.2f}, less than {LEAST_COVERAGE}" if low else None


def has_summary(evidence: Evidence, analysis: dict[str, Any]) -> str | None:
    """The comment is there, and short."""
    fits = 0 < len(str(analysis.get("tldr", "")).strip()) <= LONGEST_TLDR
    return None if fits else f"tldr must have 1 to {LONGEST_TLDR} characters"


def has_takeaways(evidence: Evidence, analysis: dict[str, Any]) -> str | None:
    """There is something to take away."""
    return None if any(map(str.strip, analysis.get("takeaways", []))) else "no takeaways"


def links_only_to_evidence(evidence: Evidence, analysis: dict[str, Any]) -> str | None:
    """No link that the model made up."""
    known = " ".join([evidence.url, evidence.summary, *evidence.snippets])
    said = " ".join([str(analysis.get("tldr", "")), *analysis.get("takeaways", [])])
    odd = [link for link in _link.findall(said) if link not in known]
    return f"links that are in no evidence: {', '.join(odd)}" if odd else None


GATES = (has_evidence, has_summary, has_takeaways, links_only_to_evidence)


def validate(evidence: Evidence, analysis: dict[str, Any]) -> list[str]:
    """What is wrong with a comment; nothing when it may be posted."""
    return [failure for gate in GATES if (failure := gate(evidence, analysis))]
