"""Writes docs/openapi.json and docs/http-api.md from the service's table of routes. `--check` changes nothing and fails on a difference."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

from perdure.service.openapi import about_of, document, query_parameters
from perdure.service.routes import ROUTES
from perdure.service.table import Route

ROOT = Path(__file__).resolve().parents[1]
HEAD = """\
# The HTTP API

*Generated from the routes by `python3 scripts/openapi.py`; do not edit.* [How to serve a store](serve.md) comes first;
[openapi.json](openapi.json) says the same for programs.

Bodies are JSON in UTF-8. `$URL` is a node, such as `http://localhost:8420`. A session id stands in a path as it is where it has letters,
digits and `-._~:@` only. Any other id, and one that is `.` or `..` or begins with `=`, is written `=` and its UTF-8 in base64url, without
padding.

Errors are problem documents (RFC 9457): `code` is a stable name, `retryable` says whether the same request may succeed later, `facts` hold
what the error is about, and `advice` says what to do where the detail does not say it. [Troubleshooting](troubleshooting.md) says what
each means. `504` on a write means that nobody knows whether it was stored: send it again with the same `Idempotency-Key`. `503` means that
it was not. A parameter, a member of a body or a condition that a route does not know is `400`: nothing is passed over.
"""


def page() -> str:
    """docs/http-api.md."""
    parts = [HEAD, "| Request | What it does | Scope |", "|---|---|---|"]
    scopes = {route.name: "" if route.scope is None else route.scope.value for route in ROUTES}
    parts += [f"| `{route.method} {route.path}` | {route.summary} | {scopes[route.name]} |" for route in ROUTES]
    for route in ROUTES:
        parts += ["", f"## {route.summary}", "", f"`{route.method} {route.path}`", ""]
        if about := about_of(route):
            parts += [about, ""]
        parts += _listed(route)
        if route.example:
            parts += ["```sh", f"curl -sS {route.example}", "```"]
    return "\n".join(parts).rstrip() + "\n"


def _listed(route: Route) -> list[str]:
    lines = [f"- `?{each['name']}=` {each.get('description', '')}".rstrip() for each in query_parameters(route.query)]
    lines += [f"- `{header.name}:` {header.meaning}" for header in route.headers]
    lines += [f"- {reply.status} {reply.meaning}" for reply in route.replies]
    return [*lines, ""] if lines else []


def made() -> dict[str, str]:
    """Each file, and what it has to hold."""
    described = document(ROUTES, version("perdure"))
    return {"docs/openapi.json": json.dumps(described, indent=1, ensure_ascii=False) + "\n", "docs/http-api.md": page()}


def main(*, check: bool) -> int:
    """Write the files, or with `check` say which are old."""
    old = [name for name, text in made().items() if not (ROOT / name).exists() or (ROOT / name).read_text() != text]
    for name in old:
        if not check:
            (ROOT / name).write_text(made()[name])
        print(f"{'old: run python3 scripts/openapi.py:' if check else 'wrote'} {name}")
    return int(check and bool(old))


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv))
