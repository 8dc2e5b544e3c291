"""What the framework makes of a checkpoint that is refused: what the page says of it."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import pytest
from agent_framework import Executor, WorkflowBuilder, WorkflowContext, handler

import perdure
from perdure.adapters.agent_framework import PerdureCheckpointStorage


@dataclass
class Trip:
    """A class that nobody allowed."""

    nights: int


class AddNight(Executor):
    """A step of a workflow."""

    @handler
    async def add(self, trip: Trip, context: WorkflowContext[Trip, Trip]) -> None:
        if trip.nights == 3:
            await context.yield_output(trip)
        else:
            await context.send_message(Trip(trip.nights + 1))


async def test_a_workflow_goes_on_without_the_checkpoints_that_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    """The run ends well; the framework's logger has a warning for each checkpoint, which names the class, and none is stored with it."""
    async with perdure.open("memory:") as store:
        checkpoints = PerdureCheckpointStorage(store)
        one, two = AddNight(id="one"), AddNight(id="two")
        builder = WorkflowBuilder(name="trips", start_executor=one, checkpoint_storage=checkpoints)
        with caplog.at_level(logging.WARNING, "agent_framework._workflows._runner"):
            result = await builder.add_edge(one, two).add_edge(two, one).build().run(Trip(1))
        assert result.get_outputs() == [Trip(3)]
        refused = [record.getMessage() for record in caplog.records if "Failed to create checkpoint at iteration" in record.getMessage()]
        assert refused and all("Trip" in message for message in refused)
        assert len(await checkpoints.list_checkpoints(workflow_name="trips")) < 3
