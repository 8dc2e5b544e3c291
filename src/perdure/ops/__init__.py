"""What runs over all sessions of a store, beside the programs that use it: functions that take a store."""

from perdure.ops.due import DueSession, due
from perdure.ops.sweeper import sweep, sweep_blocking
from perdure.ops.swept import Action, Swept

__all__ = ["Action", "DueSession", "Swept", "due", "sweep", "sweep_blocking"]
