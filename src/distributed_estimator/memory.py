"""How much memory a batch takes, added up before any is taken."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import psutil
from numpy.typing import NDArray

from .division import tasks_per_row
from .errors import PlanTooLargeError, short
from .execution import Policy
from .preparation import Prepared
from .reconstruction import Wanted
from .subexperiments import Backend

FloatArray = NDArray[np.float64]

_ALWAYS_FREE = 64 << 20
_MOST_NETWORK = 1 << 30


class MemoryLimit:
    """Bytes a batch may take.

    Args:
        limit: As configured; None: half of what is free when it is asked for.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit

    @property
    def size(self) -> int:
        """The limit now, in bytes."""
        return self._limit or psutil.virtual_memory().available // 2

    def is_exceeded(self, size: int) -> bool:
        """Whether so many bytes are too many. Free memory is asked for only where it matters."""
        if self._limit is None and size < _ALWAYS_FREE:
            return False
        return size > self.size

    def check(self, need: Need) -> int | None:
        """Make sure that a round fits.

        Args:
            need: What it takes.

        Returns:
            Numbers that its contractions may hold if they must be sliced to fit; None: they fit.

        Raises:
            PlanTooLargeError: It does not fit; the message names the fragment that is to blame.
        """
        most_elements = None
        total = need.total
        if need.network > self._most_network:
            most_elements = self._most_network // 8
            total = sum(need.fragments) + self._most_network
            try:
                need.check_slices(most_elements)
            except PlanTooLargeError as error:
                raise PlanTooLargeError(need.refusal(self.size)) from error
        if self.is_exceeded(total):
            raise PlanTooLargeError(need.refusal(self.size))
        return most_elements

    @property
    def _most_network(self) -> int:
        """Bytes a contraction may take unsliced.

        How it is sliced shows in the last bits, so this depends neither on the workers, nor on
        the other things in memory, nor on what is free.
        """
        return _MOST_NETWORK if self._limit is None else min(_MOST_NETWORK, self._limit // 8)


class Need:
    """What a round takes, in bytes.

    Args:
        prepared: What is run.
        backend: Where.
        workers: Tasks that run at a time.
        rows: Local bindings of each fragment.
        shots: Shots per subexperiment; None for exact values.
        wanted: What is asked of its results.
        policy: How rows are divided: results of parts are kept until they add up in order.
    """

    def __init__(
        self,
        prepared: Prepared,
        backend: Backend,
        workers: int,
        rows: Sequence[FloatArray],
        shots: int | None,
        wanted: Wanted,
        policy: Policy,
    ) -> None:
        self._prepared = prepared
        self._wanted = wanted
        self._advice = "ask for exact values, " if shots is not None and backend.exact else ""
        self._squared = wanted in ("errors", "orders")
        self.fragments = []
        for experiment, angles in zip(prepared.experiments, rows, strict=True):
            parts = tasks_per_row(experiment, backend, policy, shots)
            at_once = min(len(angles), workers * backend.rows_per_task(experiment))
            worker = 0 if experiment.is_trivial else backend.row_bytes(experiment, shots)
            result = experiment.result_bytes(covariances=self._squared)
            kept = 1 if parts == 1 else 1 + parts
            self.fragments.append(at_once * worker + kept * len(angles) * result)
        self.network = 8 * prepared.network.elements_per_query(squared=self._squared)

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self.fragments) + self.network

    def check_slices(self, most_elements: int) -> None:
        """Make sure that contractions fit into so many numbers, in slices if need be.

        Raises:
            PlanTooLargeError: They do not.
        """
        derivatives = self._wanted == "environments"
        self._prepared.network.sliced(most_elements, squared=False, derivatives=derivatives)
        if self._squared:
            self._prepared.network.sliced(most_elements, squared=True)

    def refusal(self, limit: int) -> str:
        """Why it does not fit, and what would help."""
        plan, worst = self._prepared.plan, self.fragments.index(max(self.fragments))
        fragment = plan.fragments[worst]
        return (
            f"the plan needs {_gib(self.total)} of memory, the limit is {_gib(limit)}: fragment "
            f"{worst} ({fragment.num_qubits} qubits, {len(fragment.slots)} slots, "
            f"{short(fragment.num_branches)} branches) takes {_gib(self.fragments[worst])}, the "
            f"contraction {_gib(self.network)} (number of cuts {plan.num_cuts}, circuits a "
            f"binding {short(self._prepared.num_circuits)}, sampling overhead "
            f"{plan.sampling_overhead:.3g}); cut fewer gates of that fragment, give it fewer "
            f"qubits, send fewer bindings a run, {self._advice}or raise `memory_limit`"
        )


def _gib(size: int) -> str:
    return f"{min(size, 10**300) / 2**30:.3g} GiB"
