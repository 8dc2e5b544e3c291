"""The routes of the resource API, a file for each thing they are about."""

from __future__ import annotations

from perdure.service.routes import commits, consumers, health, leases, lifecycle, metrics, patch, sessions, state, sweeps, watching
from perdure.service.table import Route

ROUTES: tuple[Route, ...] = (
    *commits.ROUTES,
    *state.ROUTES,
    *patch.ROUTES,
    *sessions.ROUTES,
    *lifecycle.ROUTES,
    *leases.ROUTES,
    *sweeps.ROUTES,
    *consumers.ROUTES,
    *watching.ROUTES,
    *health.ROUTES,
    *metrics.ROUTES,
)
