"""What the cost of a query depends on: its setup, its features, and terms made of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ...records import QueryRecord


@dataclass(frozen=True, order=True)
class Setup:
    """What has a law of cost of its own; the terms of another setup say nothing of this one.

    Attributes:
        pipeline: "contracted" or "reference".
        quantity: "value" or "gradient".
        backend: As records name it.
        pool: As records name it.
        policy: As records name it.
        sampled: Whether shots were drawn; False: exact values.
        plan_cached: Whether the plan was at hand.
    """

    pipeline: str
    quantity: str
    backend: str
    pool: str
    policy: str
    sampled: bool
    plan_cached: bool

    @classmethod
    def of(cls, record: QueryRecord) -> Setup:
        """That of a record."""
        return cls(
            pipeline=record.pipeline,
            quantity=record.quantity,
            backend=record.backend,
            pool=record.pool,
            policy=record.policy,
            sampled=record.shots_total > 0,
            plan_cached=record.plan_cached,
        )

    def __str__(self) -> str:
        mode = "sampled" if self.sampled else "exact"
        plan = "plan at hand" if self.plan_cached else "plan to be made"
        words = f"{mode} {self.quantity}", self.backend, f"pool {self.pool}", self.policy, plan
        return f"{self.pipeline}: {', '.join(words)}"


@dataclass(frozen=True, order=True)
class Features:
    """Numbers of a query, or of a batch, that its cost is made of.

    Attributes:
        num_qubits: Of the circuit that is cut.
        depth: Of that circuit.
        widest_fragment: Qubits of the widest fragment that runs; see `widest_fragment` for records
            that do not hold it.
        num_cuts: Of the plan, after its reduction to what reaches the observables.
        num_fragments: Of the same.
        num_circuits: Circuits of all fragments for one binding.
        num_subexperiments: Circuits times distinct local bindings.
        num_queries: In the batch.
        shots: A subexperiment, on average; 0 for exact values.
        workers: Tasks that run at a time.
    """

    num_qubits: int
    depth: int
    widest_fragment: int
    num_cuts: int
    num_fragments: int
    num_circuits: int
    num_subexperiments: int
    num_queries: int
    shots: float
    workers: int

    @classmethod
    def of(cls, record: QueryRecord) -> Features:
        """Those of a record."""
        circuit, widest = record.circuit, record.max_fragment_qubits
        if widest is None:
            widest = widest_fragment(
                circuit.num_qubits, record.partition_label, record.num_fragments
            )
        return cls(
            num_qubits=circuit.num_qubits,
            depth=circuit.depth,
            widest_fragment=widest,
            num_cuts=record.num_cuts,
            num_fragments=record.num_fragments,
            num_circuits=record.num_circuits,
            num_subexperiments=record.num_subexperiments,
            num_queries=record.num_queries,
            shots=record.shots_total / max(1, record.num_subexperiments),
            workers=record.subexp_workers,
        )


def widest_fragment(num_qubits: int, label: str | None, num_fragments: int) -> int:
    """Qubits of the widest fragment, as far as records without `max_fragment_qubits` tell.

    Args:
        num_qubits: Of the circuit.
        label: A letter for each qubit, or labels with commas between them; None: not known, and
            fragments are taken to be alike.
        num_fragments: Of the plan.

    Example:
        >>> widest_fragment(4, "AAAB", 2), widest_fragment(3, "0,0,1", 2)
        (3, 2)
    """
    for labels in (label or "", (label or "").split(",")):
        if len(labels) == num_qubits:
            return max(Counter(labels).values(), default=0)
    return -(-num_qubits // max(1, num_fragments))


Term: TypeAlias = Callable[[Features], float]
_MOST_POWERS = 500  # of two: no memory holds them, and floats can still be multiplied


def _rows(features: Features) -> float:
    """Distinct local bindings of a fragment, on average."""
    return features.num_subexperiments / max(1, features.num_circuits)


def _amplitudes(features: Features) -> float:
    """Amplitudes that gates touch, over all fragments and their bindings."""
    states = 2.0 ** min(features.widest_fragment, _MOST_POWERS)
    return _rows(features) * features.num_fragments * features.depth * states


def _divided(term: Term) -> Term:
    """What of a term each worker gets that there is a subexperiment for."""
    return lambda f: term(f) / max(1, min(f.workers, f.num_subexperiments))


_SHARED: Mapping[str, Term] = {
    "fragments": lambda f: f.num_fragments,
    "circuits": lambda f: f.num_circuits,
    "subexperiments": lambda f: f.num_subexperiments,
    "amplitudes": _amplitudes,
    "shots": lambda f: f.num_subexperiments * f.shots,
    # Measurements inside a circuit, which only cuts bring, make simulators go shot by shot.
    "shots, if cut": lambda f: f.num_subexperiments * f.shots * (f.num_cuts > 0),
    "shots × widest fragment": lambda f: f.num_subexperiments * f.shots * f.widest_fragment,
    "shots × depth": lambda f: f.num_subexperiments * f.shots * f.depth,
}
"""What tasks are made of: workers may share it."""

TERMS: Mapping[str, Term] = {
    "constant": lambda f: 1.0,
    "workers": lambda f: f.workers,
    "qubits": lambda f: f.num_qubits,
    "gates": lambda f: f.num_qubits * f.depth,
    "cuts": lambda f: f.num_cuts,
    "queries": lambda f: f.num_queries,
    "queries × qubits": lambda f: f.num_queries * f.num_qubits,
    "queries × circuits": lambda f: f.num_queries * f.num_circuits,
    "pairs of circuits": lambda f: (
        _rows(f) * f.num_circuits * (f.num_circuits / max(1, f.num_fragments))
    ),
    **_SHARED,
    **{f"{name} / workers": _divided(term) for name, term in _SHARED.items()},
}
"""Terms by the name that model files know them by; all are positive and grow with their features,
but for those that workers share."""

STAGE_TERMS: Mapping[str, tuple[str, ...]] = {
    "partition": ("constant", "qubits", "gates", "cuts", "fragments", "circuits"),
    "generate": (
        "constant",
        "fragments",
        "circuits",
        "subexperiments",
        "queries",
        "queries × qubits",
    ),
    "execute": (
        "constant",
        "workers",
        "gates",
        *_SHARED,
        *(f"{name} / workers" for name in _SHARED),
    ),
    "reconstruct": (
        "constant",
        "cuts",
        "fragments",
        "subexperiments",
        "queries",
        "queries × circuits",
        "pairs of circuits",
        "shots",
        "shots, if cut",
    ),
}
"""Terms that a stage's time may be a sum of."""
