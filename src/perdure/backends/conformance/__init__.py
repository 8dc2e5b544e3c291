"""The conformance kit: what every engine must do, as cases that anyone can run on an engine of their own.

    import pytest
    from perdure.backends.conformance import CASES, Case

    @asynccontextmanager
    async def fresh():                      # an engine on data of its own, each time
        backend = await open_my_engine()
        try: yield backend
        finally: await backend.close()

    @pytest.mark.parametrize("case", CASES, ids=str)
    def test_conformance(case: Case) -> None:
        case.run(fresh)

An engine of schema 1 is not asked for what came with schema 2 (`Case.needs_due`).
A case fails with AssertionError. It needs no pytest and no plugin. `another`, where given, opens a second handle on the data
of the first (another process's view); cases that need one are skipped without it by `Case.needs_another`.
"""

from perdure.backends.conformance import appending, ending, indexing, notifying, reading
from perdure.backends.conformance.kit import CASES, Case, Kit, behind, case, case_of_two, expecting, record, refuses, versions

__all__ = [
    "CASES",
    "Case",
    "Kit",
    "appending",
    "behind",
    "case",
    "case_of_two",
    "ending",
    "expecting",
    "indexing",
    "notifying",
    "reading",
    "record",
    "refuses",
    "versions",
]
