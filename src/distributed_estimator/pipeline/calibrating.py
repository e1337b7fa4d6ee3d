"""Calibrations as a run makes them: as tasks of its own, and kept as long as it lasts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..cutting import FloatArray
from ..errors import DeadlineError
from ..execution import (
    Arrays,
    Assignment,
    Conditions,
    Journal,
    Policy,
    Pool,
    TaskSpec,
    run_tasks,
)
from ..subexperiments import ReadoutWork

_SECONDS = 1.0
"""That a calibration is expected to take: it is worth a worker."""


@dataclass(eq=False)
class Kept:
    """What a run goes by from its beginning to its end, whether or not it was lost meanwhile.

    Attributes:
        run: Names it among all runs.
        journal: Has it for the run that goes on; None: it is kept as long as this.
        shots: Shots that calibrations took now, by the place of the device.
    """

    run: str
    journal: Journal | None = None
    shots: Counter[int] = field(default_factory=Counter)
    _known: dict[str, FloatArray] = field(default_factory=dict)

    def get(self, name: str) -> FloatArray | None:
        """Numbers that were kept; None: there are none."""
        if name not in self._known and self.journal is not None:
            found = self.journal.find(name)
            if found is not None:
                self._known[name] = found[0]
        return self._known.get(name)

    def set(self, name: str, numbers: FloatArray) -> None:
        """Keep numbers; those that were kept before stay."""
        if self._known.setdefault(name, numbers) is numbers and self.journal is not None:
            self.journal.add(name, (numbers,))


@dataclass(frozen=True, eq=False)
class Calibrating:
    """Runs calibrations on the pool, by the run's policy; see `ReadoutRun`.

    Attributes:
        pool: Where they run.
        conditions: Of the run.
        end: When its deadline is, on the conditions' clock.
        origin: What is calibrated, in the journal.
        memory: What the run keeps.
        place: Of the device in a list.
    """

    pool: Pool
    conditions: Conditions
    end: float
    origin: str
    memory: Kept
    place: int = 0

    @property
    def name(self) -> str:
        """Of the run."""
        return self.memory.run

    def at(self, place: int) -> Calibrating:
        """The same, for the device at a place in a list."""
        return replace(self, place=place)

    def kept(self, name: str) -> FloatArray | None:
        """What the run has kept under a name."""
        return self.memory.get(self._named(name))

    def keep(self, name: str, numbers: FloatArray) -> None:
        """Keep numbers for the run."""
        self.memory.set(self._named(name), numbers)

    def _named(self, name: str) -> str:
        return f"{self.origin} {self.name} device {self.place} {name}"

    def check(self) -> None:
        """Raises what ends the run, where it was cancelled or its deadline has come."""
        if self.conditions.stop is not None:
            self.conditions.stop.check()
        self._left()

    def _left(self) -> float:
        """Seconds until the deadline; raises `DeadlineError` where there are none."""
        left = self.end - self.conditions.clock()
        if left <= 0:
            raise self._late()
        return left

    def run(self, work: ReadoutWork, tasks: Sequence[Any]) -> list[Arrays]:
        """Run tasks; each is tried again as the policy says, and kept in the journal.

        Raises:
            DeadlineError: The deadline came first.
            RunCancelledError: The run was cancelled.
            TaskFailedError: One failed as often as the policy allows.
        """
        self.check()
        own, deadline = self.conditions.policy, self.conditions.policy.deadline
        if deadline is not None:
            deadline = replace(deadline, seconds=self._left())
        conditions = replace(
            self.conditions,
            policy=Policy(retry=own.retry, deadline=deadline, in_flight=own.in_flight),
            stragglers=None,
            watch=None,
        )
        results: dict[int, Arrays] = {}
        tally = run_tasks(
            self.pool,
            Assignment(
                work,
                tasks,
                [TaskSpec(task.key, _SECONDS) for task in tasks],
                work.check,
                work.describe,
                self.origin,
            ),
            lambda number, arrays, _: results.update({number: arrays}),
            conditions,
        )
        if tally.missing:
            raise self._late()
        fresh = results.keys() - set(tally.known)
        self.memory.shots[self.place] += sum(int(results[n][0][:2].sum()) for n in fresh)
        return [results[number] for number in range(len(tasks))]

    def _late(self) -> DeadlineError:
        deadline = self.conditions.policy.deadline
        seconds = math.inf if deadline is None else deadline.seconds
        return DeadlineError(
            f"after {seconds:g} s the readout was still to be calibrated: give a later deadline, "
            "or run once without one before, as calibrations are remembered"
        )
