"""The OpenAPI 3.1 document, written from the table of routes."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import msgspec

from perdure.service.answers import Answer, encode
from perdure.service.bodies import ProblemBody
from perdure.service.call import Call
from perdure.service.table import NoQuery, Reply, Route
from perdure.wire import JSON, PROBLEM

REFERENCE = "#/components/schemas/{name}"
PROBLEMS = {
    "400": "What was sent is not as the route takes it.",
    "401": "The credentials are missing, or do not hold.",
    "403": "The credentials do not allow it.",
    "404": "It is not there.",
    "429": "More than this tenant may ask for; Retry-After says when again.",
    "500": "The node has a defect, or what is stored is not what was written.",
    "503": "The engine is away, or the node is full or shutting down; nothing was written. Retry-After says when again.",
}
"""What each route with a scope may be answered with."""
WRITES = {
    "409": "Others came first, or hold the session; nothing was written.",
    "410": "The session was deleted, or what was asked for is no longer kept.",
    "413": "It is too large.",
    "415": "The body is in another media type, or coded.",
    "422": "The idempotency key was used for something else.",
    "504": "Whether it was written is not known: send it again with the same idempotency key.",
}
"""What each route that is no GET may be answered with besides."""
CONDITIONS = {"412": "The condition does not hold; nothing was written.", "428": "It needs `If-Match` or `base`; nothing was written."}
LEASES = {"423": "Another one holds the session."}


def document(routes: Sequence[Route], version: str) -> dict[str, Any]:
    """The document for these routes."""
    kinds = [kind for route in routes for kind in (route.body, *(reply.kind for reply in route.replies)) if kind is not None]
    _, components = msgspec.json.schema_components([*kinds, ProblemBody], ref_template=REFERENCE)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        if route.described:
            operation = paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
            if route.name == "appendCommit":
                operation["responses"]["201"]["links"] = _links(routes)
    for name, kind in _structs(kinds):
        _describe(components.get(name, {}), kind)
    _describe(components["ProblemBody"], ProblemBody)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Perdure session service",
            "version": version,
            "description": "Session state for long-running agents. Errors are problem documents (RFC 9457).",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": dict(sorted(components.items())),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def about_of(route: Route) -> str:
    """What is said of a route besides its summary."""
    return " ".join(filter(None, (route.about, route.keyless and f"It takes no `Idempotency-Key`. {route.keyless}")))


def _operation(route: Route) -> dict[str, Any]:
    said: dict[str, Any] = {"operationId": route.name, "summary": route.summary}
    if about := about_of(route):
        said["description"] = about
    parameters = [*_path_parameters(route), *query_parameters(route.query)]
    parameters += [
        {"name": header.name, "in": "header", "required": False, "description": header.meaning, "schema": {"type": "string"}}
        for header in route.headers
    ]
    if parameters:
        said["parameters"] = parameters
    if route.body is not None:
        schema = _schema(route.body)
        said["requestBody"] = {"required": not route.optional_body, "content": {media: {"schema": schema} for media in route.media}}
    said["responses"] = _responses(route)
    if route.scope is not None:
        said["security"] = [{}, {"bearer": [route.scope.value]}]
    return said


def _links(routes: Sequence[Route]) -> dict[str, Any]:
    """What can be asked of a session, once it has a commit."""
    return {route.name: {"operationId": route.name, "parameters": {"id": "$request.path.id"}} for route in routes if "{id}" in route.path}


def _path_parameters(route: Route) -> Iterable[dict[str, Any]]:
    for name, what in (("id", "The session's id"), ("name", "The consumer's name")):
        if f"{{{name}}}" in route.path:
            yield {
                "name": name,
                "in": "path",
                "required": True,
                "description": f"{what}; one with other characters than letters, digits, `-._~:@`, or that is `.` or `..` or begins"
                " with `=`, is written `=` and its UTF-8 in base64url.",
                "schema": {"type": "string", "minLength": 1, "maxLength": 341},
            }


def query_parameters(kind: type) -> Iterable[dict[str, Any]]:
    """The parameters of a query's struct."""
    if kind is NoQuery:
        return
    schema = msgspec.json.schema_components([kind], ref_template=REFERENCE)[1][kind.__name__]
    docs = field_docs(kind)
    for name, each in schema.get("properties", {}).items():
        said: dict[str, Any] = {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": _plain(each)}
        if name in docs:
            said["description"] = docs[name]
        yield said


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """A query has no null: a parameter is left out."""
    options = [option for option in schema.get("anyOf", ()) if option != {"type": "null"}]
    if options:
        return {**options[0]} if len(options) == 1 else {"anyOf": options}
    return {name: value for name, value in schema.items() if not (name == "default" and value is None)}


def _responses(route: Route) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for reply in route.replies:
        said = found.setdefault(str(reply.status), {"description": reply.meaning})
        if reply.headers:
            said["headers"] = {name: {"schema": {"type": "string"}} for name in reply.headers}
        if reply.kind is not None:
            said.setdefault("content", {}).update({media: {"schema": _of_media(reply, media)} for media in reply.media})
    problem = {PROBLEM: {"schema": {"$ref": REFERENCE.format(name="ProblemBody")}}}
    for status, meaning in sorted(_refusals(route).items()):
        if status not in found:
            found[status] = {"description": meaning, "content": problem}
    return dict(sorted(found.items()))


def _of_media(reply: Reply, media: str) -> dict[str, Any]:
    """Lines and messages are text, of which each has that type."""
    return _schema(reply.kind) if media == JSON else {"type": "string", "description": f"Each is a {reply.kind.__name__}."}


def _refusals(route: Route) -> Mapping[str, str]:
    names = {header.name for header in route.headers}
    found = {"403": PROBLEMS["403"], "421": "The Host is not one that the node answers for."}
    if route.scope is not None:
        found |= PROBLEMS | {"406": "No media type that the route has is accepted.", "409": WRITES["409"], "410": WRITES["410"]}
        found |= {"501": "This engine, or this node, cannot do that."}
        if route.method != "GET":
            found |= WRITES | {"408": "The request did not arrive in time."}
        if "If-Match" in names:
            found |= CONDITIONS
        if route.path.endswith("/lease"):
            found |= LEASES
    return found


def _schema(kind: Any) -> dict[str, Any]:
    (schema,), _ = msgspec.json.schema_components([kind], ref_template=REFERENCE)
    return schema


def _structs(kinds: Iterable[Any]) -> Iterable[tuple[str, type]]:
    """Each struct that stands in these types, once."""
    seen: dict[str, type] = {}

    def visit(kind: Any) -> None:
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind.__name__ not in seen:
            seen[kind.__name__] = kind
            for field in msgspec.structs.fields(kind):
                visit(field.type)
        for inner in getattr(kind, "__args__", ()):
            visit(inner)

    for kind in kinds:
        visit(kind)
    return seen.items()


def _describe(schema: dict[str, Any], kind: type) -> None:
    """Give the properties what stands below the fields."""
    docs = field_docs(kind)
    for name, each in schema.get("properties", {}).items():
        if name in docs and "$ref" not in each:
            each.setdefault("description", docs[name])
    schema.pop("title", None)


def field_docs(kind: type) -> dict[str, str]:
    """The strings that stand below a struct's fields in its source, and those of its bases."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if base is msgspec.Struct or not issubclass(base, msgspec.Struct):
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        for before, after in pairwise(definition.body):  # type: ignore[attr-defined]
            if not isinstance(before, ast.AnnAssign) or not isinstance(before.target, ast.Name):
                continue
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                found[before.target.id] = " ".join(str(after.value.value).split())
    return found


def make_route(routes: Sequence[Route], version: str) -> Route:
    """The route that answers with the document of these routes. It is made when it is first asked for."""
    body: list[bytes] = []

    async def read(call: Call) -> Answer:  # noqa: ARG001
        """The document."""
        if not body:
            body.append(encode(document(routes, version)))
        return Answer(200, body[0], JSON, [("cache-control", "no-cache")])

    return Route(
        method="GET", path="/openapi.json", scope=None, handle=read, name="openapi", summary="This API, as an OpenAPI 3.1 document",
        replies=(Reply(200, "The document.", dict),), described=False, example="$URL/openapi.json",
    )  # fmt: skip
