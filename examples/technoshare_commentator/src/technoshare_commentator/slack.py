"""The post to Slack: a comment in the thread of the message that shared the link."""

from typing import Any

import httpx

from .jobs import Job
from .retrieval import Evidence

LONGEST_HEADER = 150
LONGEST_SECTION = 3000


class SlackError(Exception):
    """Slack did not take the post."""


def payload(job: Job, evidence: Evidence, analysis: dict[str, Any]) -> dict[str, Any]:
    """What `chat.postMessage` is sent."""
    takeaways = "\n".join(f"• {escaped(text)}" for text in analysis["takeaways"])
    source = f"{evidence.domain} · confidence {analysis['confidence']}"
    header = (evidence.title or evidence.url)[:LONGEST_HEADER]
    return {
        "channel": job.channel_id,
        "thread_ts": job.message_ts,
        "text": escaped(analysis["tldr"]),
        "unfurl_links": False,
        "blocks": [
            {"type": "header", "text": {"type": "plain_text", "text": header}},
            _section(f"*{escaped(analysis['tldr'])}*"),
            _section(takeaways),
            {"type": "context", "elements": [{"type": "mrkdwn", "text": source}]},
        ],
    }


def post(url: str, token: str, message: dict[str, Any]) -> None:
    """Post a message.

    Raises:
        SlackError: Slack did not take it, or does not answer.
    """
    headers = {"Authorization": f"Bearer {token}"}
    try:
        answer = httpx.post(f"{url}/chat.postMessage", json=message, headers=headers, timeout=20)
        told = answer.raise_for_status().json()
    except (httpx.HTTPError, ValueError) as exc:
        raise SlackError(f"Slack does not answer: {exc}") from exc
    if not told.get("ok"):
        raise SlackError(f"Slack refuses the message: {told.get('error')}")


def escaped(text: str) -> str:
    """Text that Slack reads as text alone. Source: docs.slack.dev, formatting message text."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text[:LONGEST_SECTION]}}
