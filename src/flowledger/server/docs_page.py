"""The OpenAPI document as a page: readable without scripts and without another server."""

import json
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

__all__ = ["page"]

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;"
    "color:#1c2530;background:#fff}"
    "section{border-top:1px solid #d5dbe1;margin-top:2rem}"
    "code,pre{font:14px/1.45 ui-monospace,monospace}"
    "pre{background:#f3f5f7;padding:.75rem;overflow-x:auto}"
    "table{border-collapse:collapse;width:100%}"
    "th,td{text-align:left;vertical-align:top;padding:.25rem .75rem .25rem 0;"
    "border-bottom:1px solid #e6eaee}"
)


def page(document: dict[str, Any]) -> str:
    """The document as HTML: each route with its parameters, body and answers, then the records."""
    title = f"{document['info']['title']} {document['info']['version']}"
    parts = [
        f"<h1>{escape(title)}</h1><p>{escape(document['info'].get('description', ''))}</p>",
        '<p>For programs: <a href="openapi.json">openapi.json</a></p>',
        *_routes(document),
        *_schemas(document),
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{STYLE}</style></head><body><main>{''.join(parts)}</main></body></html>"
    )


def _routes(document: dict[str, Any]) -> Iterator[str]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"<section><h2><code>{method.upper()} {escape(path)}</code></h2>"
            yield f"<p>{escape(operation.get('description', ''))}</p>"
            yield from _parameters(operation.get("parameters", []))
            yield from _body(operation.get("requestBody", {}))
            yield from _answers(operation["responses"])
            yield "</section>"


def _parameters(parameters: list[dict[str, Any]]) -> Iterator[str]:
    if parameters:
        rows = [
            (p["name"], p["in"], _type_of(p.get("schema", {})), p.get("description", ""))
            for p in parameters
        ]
        yield _table(("parameter", "in", "type", ""), rows)


def _body(body: dict[str, Any]) -> Iterator[str]:
    for media_type, content in body.get("content", {}).items():
        yield f"<p>Body <code>{escape(media_type)}</code>: "
        yield f"{escape(_type_of(content.get('schema', {})))}</p>"
        if "example" in content:
            yield f"<pre>{escape(json.dumps(content['example'], indent=2))}</pre>"


def _answers(responses: dict[str, Any]) -> Iterator[str]:
    rows = [
        (code, _type_of(_schema_of(answer)), answer.get("description", ""))
        for code, answer in sorted(responses.items())
    ]
    yield _table(("answer", "type", ""), rows)


def _schema_of(answer: dict[str, Any]) -> dict[str, Any]:
    contents = list(answer.get("content", {}).values())
    return contents[0].get("schema", {}) if contents else {}


def _schemas(document: dict[str, Any]) -> Iterator[str]:
    for name, schema in sorted(document.get("components", {}).get("schemas", {}).items()):
        rows = [
            (field, _type_of(about), about.get("description", ""))
            for field, about in schema.get("properties", {}).items()
        ]
        yield f'<section id="{escape(name)}"><h2>{escape(name)}</h2>'
        yield f"<p>{escape(schema.get('description', ''))}</p>"
        yield _table(("field", "type", ""), rows)
        yield "</section>"


def _type_of(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices:
        return " or ".join(_type_of(choice) for choice in choices)
    if schema.get("type") == "array":
        return f"list of {_type_of(schema.get('items', {}))}"
    return str(schema.get("type", "any"))


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    first = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows
    )
    return f"<table><tr>{first}</tr>{body}</table>"
