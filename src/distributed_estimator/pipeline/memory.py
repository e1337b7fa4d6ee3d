"""How much memory a batch takes, added up before any is taken."""

from __future__ import annotations

from dataclasses import replace

import psutil

from ..cutting import Fragment
from ..errors import PlanTooLargeError, short
from ..reconstruction import Wanted
from .rounds import RoundRequest

_ALWAYS_FREE = 64 << 20
_MOST_NETWORK = 1 << 30
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


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
            need: Memory that it takes.

        Returns:
            Numbers that its contractions may hold if they must be sliced to fit; None: they fit.

        Raises:
            PlanTooLargeError: It does not fit; the message names the fragment that is to blame.
        """
        most_elements = None
        if need.network > self._most_network:
            most_elements = self._most_network // 8
            try:
                need.check_slices(most_elements)
            except PlanTooLargeError as error:
                raise PlanTooLargeError(need.refusal(self)) from error
        if self.is_exceeded(need.total_with(most_elements)):
            raise PlanTooLargeError(need.refusal(self))
        return most_elements

    @property
    def text(self) -> str:
        """The limit now and where it comes from, for messages."""
        source = "half of what is free" if self._limit is None else "`memory_limit`"
        return f"{in_bytes(self.size)} ({source})"

    def remedy(self, size: int) -> list[str]:
        """How so many bytes could be allowed for, if there are as many at all."""
        if size > psutil.virtual_memory().total:
            return []
        return ["free memory" if self._limit is None else "raise `memory_limit`"]

    @property
    def _most_network(self) -> int:
        """Bytes a contraction may take unsliced.

        How it is sliced shows in the last bits, so this depends neither on the workers, nor on
        the other things in memory, nor on what is free.
        """
        return _MOST_NETWORK if self._limit is None else min(_MOST_NETWORK, self._limit // 8)


class Need:
    """Memory that a round takes, in bytes.

    Args:
        request: The round. Results of a row's parts are kept until they add up in order.
        workers: Tasks that run at a time.
    """

    def __init__(self, request: RoundRequest, workers: int) -> None:
        self._request = request
        self._workers = workers
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
        elements = request.prepared.network.elements_per_query(squared=request.covariances)
        self.network = 8 * elements

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self.fragments) + self.network

    def total_with(self, most_elements: int | None) -> int:
        """All of it where contractions hold at most so many numbers."""
        return self.total if most_elements is None else sum(self.fragments) + 8 * most_elements

    def check_slices(self, most_elements: int) -> None:
        """Make sure that contractions fit into so many numbers, in slices if need be.

        Raises:
            PlanTooLargeError: They do not.
        """
        network, wanted = self._request.prepared.network, self._request.wanted
        network.sliced(most_elements, squared=False, derivatives=wanted == "environments")
        if self._request.covariances:
            network.sliced(most_elements, squared=True)

    def refusal(self, limit: MemoryLimit) -> str:
        """Why it does not fit, and what would help."""
        prepared, worst = self._request.prepared, self.fragments.index(max(self.fragments))
        plan = prepared.plan
        fragment = plan.fragments[worst]
        return (
            f"the plan needs {in_bytes(self.total)} of memory, the limit is {limit.text}: fragment "
            f"{worst} ({fragment.num_qubits} qubits, {len(fragment.slots)} slots, "
            f"{short(fragment.num_branches)} branches) takes {in_bytes(self.fragments[worst])}, "
            f"the contraction {in_bytes(self.network)} (number of cuts {plan.num_cuts}, circuits a "
            f"binding {short(prepared.num_circuits)}, sampling overhead "
            f"{plan.sampling_overhead:.3g}); {', or '.join(self._remedies(fragment, limit))}"
        )

    def _remedies(self, fragment: Fragment, limit: MemoryLimit) -> list[str]:
        """Changes to what is run, each of which applies to it."""
        remedies = ["cut fewer gates of that fragment"] if fragment.slots else []
        if fragment.num_qubits > 1:
            fewer = "give it fewer qubits" if fragment.slots else "cut it into narrower fragments"
            remedies.append(fewer)
        if max(map(len, self._request.rows), default=0) > 1:
            remedies.append("send fewer bindings a run")
        if self._request.shots is not None and self._request.backend.exact:
            wanted: Wanted = "values" if self._request.covariances else self._request.wanted
            exact = replace(self._request, shots=None, wanted=wanted)
            if not limit.is_exceeded(Need(exact, self._workers).total):
                remedies.append("ask for exact values")
        return remedies + limit.remedy(self.total)


def in_bytes(size: int) -> str:
    """A number of bytes in a unit that keeps it readable.

    Example:
        >>> in_bytes(8), in_bytes(6_870_000), in_bytes(64 << 40)
        ('8 B', '6.552 MiB', '64 TiB')
    """
    power = min(max(size.bit_length() - 1, 0) // 10, len(_UNITS) - 1)
    return f"{min(size, 10**300) / 2 ** (10 * power):.4g} {_UNITS[power]}"
