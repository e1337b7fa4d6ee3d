"""What stands between tasks and whatever evaluates them."""

from __future__ import annotations

from typing import Protocol

from .experiments import FragmentExperiment
from .tasks import FragmentEstimate, Task


class Backend(Protocol):
    """Evaluates the subexperiments of a task.

    A backend holds no state that changes from task to task: tasks run in any order, on any
    number of workers.
    """

    @property
    def name(self) -> str:
        """For records."""
        ...

    @property
    def identity(self) -> str:
        """What tells it from backends that give other results for the same tasks."""
        ...

    @property
    def exact(self) -> bool:
        """Whether it can give exact values (shots None)."""
        ...

    @property
    def max_qubits(self) -> int | None:
        """Qubits of the widest fragment it takes; None: as wide as memory allows."""
        ...

    def rows_per_task(self, experiment: FragmentExperiment) -> int:
        """Bindings of an experiment that make a task; a function of the experiment alone."""
        ...

    def circuits_per_task(self, experiment: FragmentExperiment) -> int | None:
        """Subexperiments that make a task at most, a function of the experiment alone.

        None: all of them, as nothing is gained by dividing them.
        """
        ...

    def row_bytes(self, experiment: FragmentExperiment, shots: int | None) -> int:
        """Memory a worker needs at its peak per binding of a task, in bytes."""
        ...

    def expected_seconds(self, experiment: FragmentExperiment, task: Task) -> float:
        """A rough guess of how long a task takes, by which short tasks are bundled."""
        ...

    def run(self, experiment: FragmentExperiment, task: Task) -> FragmentEstimate:
        """Evaluate the task's circuits at its rows, as if no other circuit had any outcome."""
        ...
