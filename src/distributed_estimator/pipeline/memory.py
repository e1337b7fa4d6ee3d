"""How much memory a batch takes, added up before any is taken."""

from __future__ import annotations

from dataclasses import replace

import psutil

from ..errors import PlanTooLargeError, short
from ..reconstruction import Wanted
from .rounds import RoundRequest

_ALWAYS_FREE = 64 << 20
_MOST_NETWORK = 1 << 30
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


class Need:
    """Memory that a round takes, in bytes.

    Args:
        request: The round. Results of a row's parts are kept until they add up in order.
        workers: Tasks that run at a time.
    """

    def __init__(self, request: RoundRequest, workers: int) -> None:
        self.request, self.workers = request, workers
        self.fragments = []
        for experiment, angles in zip(request.prepared.experiments, request.rows, strict=True):
            parts = request.tasks_per_row(experiment)
            at_once = min(len(angles), workers * request.backend.rows_per_task(experiment))
            worker = 0
            if not experiment.is_trivial:
                worker = request.backend.row_bytes(experiment, request.shots)
            result = experiment.result_bytes(covariances=request.covariances)
            kept = 1 if parts == 1 else 1 + parts
            self.fragments.append(at_once * worker + kept * len(angles) * result)
        network = request.prepared.network
        self.network = 8 * network.elements_per_query(squared=request.covariances)

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self.fragments) + self.network

    def total_with(self, most_elements: int | None) -> int:
        """All of it where contractions hold at most so many numbers."""
        return self.total if most_elements is None else sum(self.fragments) + 8 * most_elements


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

        Returns:
            Numbers that its contractions may hold if they must be sliced to fit; None: they fit.

        Raises:
            PlanTooLargeError: It does not fit; the message names the fragment that is to blame.
        """
        # How a contraction is sliced shows in the last bits, so what it may take unsliced depends
        # neither on the workers, nor on the other things in memory, nor on what is free.
        most = _MOST_NETWORK if self._limit is None else min(_MOST_NETWORK, self._limit // 8)
        most_elements = None
        if need.network > most:
            most_elements, request = most // 8, need.request
            network, back = request.prepared.network, request.wanted == "environments"
            try:
                network.sliced(most_elements, squared=False, derivatives=back)
                if request.covariances:
                    network.sliced(most_elements, squared=True)
            except PlanTooLargeError as error:
                raise PlanTooLargeError(self._refusal(need)) from error
        if self.is_exceeded(need.total_with(most_elements)):
            raise PlanTooLargeError(self._refusal(need))
        return most_elements

    def _refusal(self, need: Need) -> str:
        """Why it does not fit, and what would help."""
        prepared, worst = need.request.prepared, need.fragments.index(max(need.fragments))
        plan, fragment = prepared.plan, prepared.plan.fragments[worst]
        source = "half of what is free" if self._limit is None else "`memory_limit`"
        return (
            f"the plan needs {in_bytes(need.total)} of memory, the limit is {in_bytes(self.size)} "
            f"({source}): fragment {worst} ({fragment.num_qubits} qubits, {len(fragment.slots)} "
            f"slots, {short(fragment.num_branches)} branches) takes "
            f"{in_bytes(need.fragments[worst])}, the contraction {in_bytes(need.network)} (number "
            f"of cuts {plan.num_cuts}, circuits a binding {short(prepared.num_circuits)}, sampling "
            f"overhead {plan.sampling_overhead:.3g}); {', or '.join(self._remedies(need, worst))}"
        )

    def _remedies(self, need: Need, worst: int) -> list[str]:
        """Changes to what is run, each of which applies to it."""
        request, fragment = need.request, need.request.prepared.plan.fragments[worst]
        remedies = ["cut fewer gates of that fragment"] if fragment.slots else []
        if fragment.num_qubits > 1:
            fewer = "give it fewer qubits" if fragment.slots else "cut it into narrower fragments"
            remedies.append(fewer)
        if max(map(len, request.rows), default=0) > 1:
            remedies.append("send fewer bindings a run")
        if request.shots is not None and request.backend.exact:
            wanted: Wanted = "values" if request.covariances else request.wanted
            exact = replace(request, shots=None, wanted=wanted)
            if not self.is_exceeded(Need(exact, need.workers).total):
                remedies.append("ask for exact values")
        if need.total <= psutil.virtual_memory().total:
            remedies.append("free memory" if self._limit is None else "raise `memory_limit`")
        return remedies


def in_bytes(size: int) -> str:
    """A number of bytes in a unit that keeps it readable.

    Example:
        >>> in_bytes(8), in_bytes(6_870_000), in_bytes(64 << 40)
        ('8 B', '6.552 MiB', '64 TiB')
    """
    power = min(max(size.bit_length() - 1, 0) // 10, len(_UNITS) - 1)
    return f"{min(size, 10**300) / 2 ** (10 * power):.4g} {_UNITS[power]}"
