"""The routes of the resource API, a file for each thing they are about."""

from __future__ import annotations

from perdure.service.routes import health, metrics
from perdure.service.table import Route

ROUTES: tuple[Route, ...] = (*health.ROUTES, *metrics.ROUTES)
