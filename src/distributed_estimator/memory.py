"""How much memory a batch takes, added up before any is taken."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import psutil
from numpy.typing import NDArray

from .errors import PlanTooLargeError
from .preparation import Prepared
from .subexperiments import Backend

FloatArray = NDArray[np.float64]

_ALWAYS_FREE = 64 << 20


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

    def check(
        self,
        prepared: Prepared,
        backend: Backend,
        workers: int,
        rows: Sequence[FloatArray],
        shots: int | None,
        *,
        covariances: bool,
    ) -> None:
        """Make sure that a round fits.

        Args:
            prepared: What is run.
            backend: Where.
            workers: Tasks that run at a time.
            rows: Local bindings of each fragment.
            shots: Shots per subexperiment; None for exact values.
            covariances: Whether the covariances of sampled values are wanted.

        Raises:
            PlanTooLargeError: It does not; the message names the fragment that is to blame.
        """
        needs = []
        for experiment, angles in zip(prepared.experiments, rows, strict=True):
            at_once = min(len(angles), workers * backend.rows_per_task(experiment))
            worker = 0 if experiment.is_trivial else backend.row_bytes(experiment, shots)
            result = experiment.result_bytes(covariances=covariances)
            needs.append(at_once * worker + len(angles) * result)
        query = 8 * prepared.network.elements_per_query(squared=covariances)
        total = sum(needs) + query
        if self.is_exceeded(total):
            better = "ask for exact values, " if shots is not None and backend.exact else ""
            raise PlanTooLargeError(self._refusal(prepared, total, needs, query, better))

    def _refusal(
        self, prepared: Prepared, total: int, needs: Sequence[int], network: int, better: str
    ) -> str:
        plan, worst = prepared.plan, needs.index(max(needs))
        fragment = plan.fragments[worst]
        return (
            f"the plan needs {_gib(total)} of memory, the limit is {_gib(self.size)}: fragment "
            f"{worst} ({fragment.num_qubits} qubits, {len(fragment.slots)} slots, "
            f"{_short(fragment.num_branches)} branches) takes {_gib(needs[worst])}, the "
            f"contraction {_gib(network)} (number of cuts {plan.num_cuts}, circuits a "
            f"binding {_short(prepared.num_circuits)}, sampling overhead "
            f"{plan.sampling_overhead:.3g}); cut fewer gates of that fragment, give it fewer "
            f"qubits, send fewer bindings a run, {better}or raise `memory_limit`"
        )


def _gib(size: int) -> str:
    return f"{min(size, 10**300) / 2**30:.3g} GiB"


def _short(count: int) -> str:
    return str(count) if count < 10**7 else f"{min(count, 10**300):.3g}"
