"""The API described: the OpenAPI document, and a page for people made from it, without scripts."""

from typing import Any

import msgspec
from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse

from flowledger.records import Call
from flowledger.server.batches import LARGEST
from flowledger.server.docs_page import page
from flowledger.server.health import PUBLIC_PATHS
from flowledger.server.ingest import CALLS_PATH
from flowledger.server.parts import Parts

__all__ = ["DESCRIPTION", "openapi", "router"]

DESCRIPTION = (
    "The record of every LLM call an application makes, kept on MLflow. MLflow's own API and pages"
    " are on the same port. Errors come as `detail`: a sentence that says what to change."
)


def router(parts: Parts) -> APIRouter:
    """The document and the page."""
    routes = APIRouter(include_in_schema=False)
    routes.add_api_route("/api/openapi.json", _document, response_class=JSONResponse)
    routes.add_api_route("/api/docs", _page, response_class=HTMLResponse)
    return routes


def openapi(app: FastAPI, parts: Parts) -> dict[str, Any]:
    """The OpenAPI document of our routes; MLflow's are its own affair."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    components = document.setdefault("components", {})
    components.setdefault("schemas", {}).update(_record_schemas())
    if parts.users is not None:
        _add_security(document, components)
    return document


async def _document(request: Request) -> JSONResponse:
    return JSONResponse(_served_at(request))


async def _page(request: Request) -> HTMLResponse:
    return HTMLResponse(page(_served_at(request)))


def _served_at(request: Request) -> dict[str, Any]:
    document: dict[str, Any] = request.app.openapi()
    return {**document, "servers": [{"url": request.scope.get("root_path") or "/"}]}


def _record_schemas() -> dict[str, Any]:
    """A call and its parts as JSON takes them."""
    _, schemas = msgspec.json.schema_components([Call], ref_template="#/components/schemas/{name}")
    for schema in schemas.values():
        for field in schema.get("properties", {}).values():
            _bound(field)
    call = schemas["Call"]
    call["required"] = []
    call["properties"].pop("unknown")  # any other field is kept as it comes
    call["properties"]["id"] |= {
        "pattern": "^[0-9a-f]{32}$",
        "description": "A UUIDv7 in hex; made when missing. Give it, and sending again is safe.",
    }
    call["properties"]["start_ns"]["description"] = "Unix time; the time of storing when missing."
    return schemas


def _bound(field: dict[str, Any]) -> None:
    """What ingest takes for a whole number."""
    for kind in (field, *field.get("anyOf", ())):
        if kind.get("type") == "integer":
            kind |= {"minimum": 0, "maximum": LARGEST}


def _add_security(document: dict[str, Any], components: dict[str, Any]) -> None:
    components["securitySchemes"] = {
        "user": {"type": "http", "scheme": "basic", "description": "One of MLflow's users."},
        "key": {"type": "http", "scheme": "bearer", "description": "For sending calls and spans."},
    }
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            ways = ("user", "key") if (method, path) == ("post", CALLS_PATH) else ("user",)
            if path not in PUBLIC_PATHS:
                operation["security"] = [{way: []} for way in ways]
