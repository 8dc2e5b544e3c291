"""The routes of the resource API, a file for each thing they are about."""

from __future__ import annotations

from perdure.service.routes import commits, health, leases, lifecycle, metrics, patch, sessions, state, watching
from perdure.service.table import Route

ROUTES: tuple[Route, ...] = (
    *commits.ROUTES,
    *state.ROUTES,
    *patch.ROUTES,
    *sessions.ROUTES,
    *lifecycle.ROUTES,
    *leases.ROUTES,
    *watching.ROUTES,
    *health.ROUTES,
    *metrics.ROUTES,
)
