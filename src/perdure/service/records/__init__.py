"""The record face of a node: what a Python client, which does the engine's work itself, asks of the engine that it serves.

verify    what can be known of records alone      rules    what each kind of commit may say
scopes    which scope a commit asks for           plans    what commits make of a session
verified  the node's appends: nobody is trusted   relay    the same messages without verification, which `serve` cannot make
notices   which sessions have news                routes   all of it as HTTP
"""

from __future__ import annotations

from perdure.service.call import Call
from perdure.service.hooks import Credential
from perdure.service.node import Node
from perdure.service.records.face import Face
from perdure.service.records.routes import routes
from perdure.service.records.verified import VerifiedFace


def _of_node(call: Call) -> tuple[Face, Credential | None]:
    return call.node.part(VerifiedFace, _face), call.credential


def _face(node: Node) -> VerifiedFace:
    return VerifiedFace(node.store._context.opened(), node.options.max_body)


ROUTES = routes(_of_node)
"""Those of a node."""
