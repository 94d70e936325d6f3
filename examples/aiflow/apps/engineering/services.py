"""The AI operations, each tracked by one decorator; the code below it knows nothing of MLflow."""

import base64
import functools
import json
import re
from typing import Any

from openai import OpenAI

from apps.mlflow_integration.decorators import (
    track_custom_operation,
    track_dalle_generation,
    track_gpt_text,
    track_gpt_vision,
    track_rag_operation,
)

KNOWLEDGE = (
    "A centrifugal pump needs a strainer before it and a check valve behind it.",
    "A control valve has a bypass and block valves on both sides.",
    "A heat exchanger has temperature indicators on both sides of the shell.",
    "A vessel under pressure has a relief valve that leads to the flare.",
)
CONFIDENCE = {"type": "number", "minimum": 0, "maximum": 1}
ISSUE = {
    "type": "object",
    "properties": {
        "tag": {"type": "string"},
        "severity": {"enum": ["critical", "major", "minor"]},
        "text": {"type": "string"},
    },
    "required": ["tag", "severity", "text"],
    "additionalProperties": False,
}
ISSUES = {"issues": {"type": "array", "items": ISSUE, "maxItems": 5}, "confidence": CONFIDENCE}
SPECIFICATION = {"specification": {"type": "string"}, "confidence": CONFIDENCE}
CELLS = 4
_word = re.compile(r"\w{4,}")


@functools.cache
def openai() -> OpenAI:
    """The one client; key and address come from the environment."""
    return OpenAI()


@track_gpt_vision("pid_verification", "diagram_analysis")
def analyze_pid_diagram(image_data: bytes, model: str = "gpt-4o") -> dict[str, Any]:
    """Find what is wrong in a drawing."""
    url = f"data:image/png;base64,{base64.b64encode(image_data).decode()}"
    content = [
        {"type": "text", "text": "List what breaks the rules of this P&ID."},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    return _ask(model, content, ISSUES)


@track_rag_operation("pfd_conversion", "knowledge_retrieval")
def query_knowledge_base(query: str, top: int = 2) -> dict[str, Any]:
    """The rules that share most words with a query, with the part of the words they share."""
    asked = set(_word.findall(query.lower()))
    scored = [(len(asked & set(_word.findall(rule.lower()))), rule) for rule in KNOWLEDGE]
    best = [pair for pair in sorted(scored, reverse=True)[:top] if pair[0]]
    return {
        "documents": [rule for _, rule in best],
        "similarities": [shared / len(asked) for shared, _ in best],
    }


@track_gpt_text("pfd_conversion", "spec_generation")
def generate_specification(
    data: str, model: str = "gpt-4o", temperature: float = 0.2
) -> dict[str, Any]:
    """Write the specification of a P&ID from the description of its PFD."""
    rules = query_knowledge_base(data)["documents"]
    text = f"Specify the P&ID of this PFD: {data}\nRules:\n" + "\n".join(rules)
    return _ask(model, text, SPECIFICATION, temperature=temperature)


@track_dalle_generation("visual_generation")
def generate_pid_diagram(
    prompt: str, model: str = "dall-e-3", size: str = "1024x1024", quality: str = "standard"
) -> dict[str, Any]:
    """Draw a diagram; the answer has its address."""
    drawn: Any = openai().images.generate(
        prompt=prompt,
        model=model,
        size=size,
        quality=quality,  # type: ignore[call-overload]
    )
    return {"url": drawn.data[0].url, "size": size, "quality": quality}


@track_custom_operation("crs_analysis", "validation")
def validate_document(text: str) -> dict[str, Any]:
    """Check that every line of a sheet has its number, author, comment and answer."""
    lines = [line.split("|") for line in text.splitlines() if line.strip()]
    complete = sum(len(line) == CELLS and all(map(str.strip, line)) for line in lines)
    score = complete / len(lines) if lines else 0.0
    return {"valid": bool(lines) and score == 1, "comments": len(lines), "score": score}


def _ask(model: str, content: Any, answer: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """One chat whose answer has these fields, with its model and usage beside them."""
    schema = {
        "type": "object",
        "properties": answer,
        "required": list(answer),
        "additionalProperties": False,
    }
    chat = openai().chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": content}],
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": schema, "strict": True},
        },
        **settings,
    )
    told: dict[str, Any] = json.loads(chat.choices[0].message.content or "{}")
    return {**told, "model": chat.model, "usage": chat.usage}
