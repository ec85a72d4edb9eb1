"""Tasks: what networks learn and are judged by, which is classes, values or spike trains."""

from bootstrap_core.tasks.classes import Classes
from bootstrap_core.tasks.recordings import SpikeTrains, Values
from bootstrap_core.tasks.task import Task
from specs.network import NetworkSpec
from specs.training import TrainingSpec

_TASKS: dict[str, type[Task]] = {"classes": Classes, "values": Values, "spike trains": SpikeTrains}


def task_of(spec: NetworkSpec, recipe: TrainingSpec | None = None) -> Task:
    """Return the task of a network; see `Task` for the arguments."""
    return _TASKS[spec.gives](spec, recipe)
