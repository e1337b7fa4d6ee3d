"""The cut plan: everything that depends on a circuit's structure alone.

Where to cut is labelled, or searched for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import TypeAlias, cast

from qiskit import QuantumCircuit

from ..checks import described
from ..errors import CutError, InputError, shortened
from .channels import SettingBasis
from .circuit import NormalCircuit, normalise
from .drawing import Drawing, draw, summary
from .fragments import Cut, Fragment, separating, split
from .gates import gate_key
from .marks import CutAt, can_cut, check_marks, cut_at, marks
from .runs import merge_runs
from .search import AutoCut, Prediction, find_cuts, other_widths, predict

Labels: TypeAlias = Sequence[Hashable]
Cuts: TypeAlias = "Labels | AutoCut | CutAt | CutPlan | None"
"""Everything that says where to cut."""

_MOST_CONES = 256


@dataclass(frozen=True, eq=False)
class CutPlan:
    """A circuit, its fragments and the cuts that join them.

    Built once from the parameterised circuit and used for every binding of its parameters.
    Fragments are the connected components of the circuit without its cuts, so one label may
    give several fragments. A cut that separates nothing is made only where `CutAt` names it, or a
    mark in the circuit and no labels.

    Attributes:
        circuit: The circuit the plan was built from.
        label: The labels as text, for records; None where the circuit is not labelled.
        normal: The circuit in normal form.
        cut_operations: Numbers of the operations of `normal` that are cut.
        observed: Circuit qubits that observables may act on.
        fragments: The pieces, in order of their first qubit.
        cuts: The cuts, in circuit order.

    Example:
        >>> from qiskit import QuantumCircuit
        >>> circuit = QuantumCircuit(4)
        >>> for qubit in range(3):
        ...     _ = circuit.cx(qubit, qubit + 1)
        >>> plan = CutPlan.build(circuit, "AABB")
        >>> plan.num_fragments, plan.num_cuts, round(plan.sampling_overhead)
        (2, 1, 9)
    """

    circuit: QuantumCircuit = field(repr=False)
    label: str | None
    normal: NormalCircuit = field(repr=False)
    cut_operations: frozenset[int]
    observed: frozenset[int]
    fragments: tuple[Fragment, ...] = field(init=False, repr=False)
    cuts: tuple[Cut, ...] = field(init=False, repr=False)
    _cones: dict[frozenset[int], CutPlan] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        fragments, cuts = split(self.normal, self.cut_operations, self.observed)
        object.__setattr__(self, "fragments", fragments)
        object.__setattr__(self, "cuts", cuts)

    @staticmethod
    def build(
        circuit: QuantumCircuit, cuts: Cuts, observed: Iterable[int] | None = None
    ) -> CutPlan:
        """Plan the cuts of a circuit.

        Args:
            circuit: A circuit without classical control, which may hold the addon's `CutWire` and
                `Move`. Measurements, whose outcomes are ignored, and resets are run in the fragment
                of their qubit; final measurements are left out.
            cuts: A label per qubit (character i of a string labels qubit i): gates and
                moves between labels are cut, and every `CutWire`, as far as that separates
                anything. `AutoCut`: searched for. `CutAt`: cut as named. None: cut where the
                circuit is marked, by `CutWire`, `Move`, or qiskit-addon-cutting's `cut_gates`,
                `cut_wires` or `find_cuts`, and nowhere else. A plan of this very circuit: returned
                as it is.
            observed: Qubits that observables act on; None: all. A search looks for the best cuts
                of what can reach them.

        Raises:
            CutError: Labels or `CutAt` do not fit the circuit or its marks, or the search finds
                nothing.
            CircuitError: The circuit cannot be cut or estimated.
        """
        if isinstance(cuts, CutPlan):
            cuts._check_circuit(circuit)
            return cuts
        if cuts is None:
            normal = normalise(circuit, lambda qubits: True)
            return CutPlan._of(circuit, None, normal, marks(normal))
        if isinstance(cuts, CutAt):
            normal = normalise(circuit, lambda qubits: True)
            chosen = cut_at(normal, circuit, cuts)
            check_marks(normal, chosen)
            return CutPlan._of(circuit, None, normal, chosen)
        if isinstance(cuts, AutoCut):
            reached = frozenset(range(circuit.num_qubits) if observed is None else observed)
            normal = normalise(circuit, lambda qubits: True, widest=2).light_cone(reached)
            if marks(normal):
                raise CutError(
                    "the circuit holds gates marked as cut, `CutWire` or `Move` and `cuts` is an "
                    "AutoCut: remove the marks, or give labels instead"
                )
            normal, chosen, _ = find_cuts(normal, cuts)
            return CutPlan(circuit, None, normal, chosen, reached)
        labels = _check_labels(cuts, circuit)
        normal = normalise(circuit, lambda qubits: len({labels[q] for q in qubits}) == 1)
        chosen = frozenset(
            index
            for index, operation in enumerate(normal.operations)
            if operation.kind == "cut_wire" or len({labels[q] for q in operation.qubits}) > 1
        )
        check_marks(normal, chosen)
        text = cuts if isinstance(cuts, str) else ",".join(map(str, labels))
        return CutPlan._of(circuit, text, normal, separating(normal, chosen))

    @staticmethod
    def _of(
        circuit: QuantumCircuit, label: str | None, normal: NormalCircuit, cut: frozenset[int]
    ) -> CutPlan:
        """The plan that makes these cuts, with runs of gates that are cut put together."""
        everything = frozenset(range(circuit.num_qubits))
        return CutPlan(circuit, label, *merge_runs(normal, cut), everything)

    def alternatives(self, search: AutoCut | None = None) -> list[CutPlan]:
        """Plans of the circuit for devices of other widths: what more qubits save, and fewer cost.

        Searched are half and twice the width, one qubit more and one less, and itself. Each plan
        says what it is likely to cost (`predicted`); `DistributedEstimator.price` simulates that.

        Args:
            search: For fragments of one width, with other limits; None: of that of this plan.

        Returns:
            From the narrowest to the widest, each of a lower price than all before it.

        Raises:
            InputError: The search is for devices of several widths.
            CircuitError: The circuit cannot be cut or estimated.

        Example:
            >>> from qiskit import QuantumCircuit
            >>> circuit = QuantumCircuit(8)
            >>> for qubit in range(7):
            ...     _ = circuit.cx(qubit, qubit + 1)
            >>> plans = CutPlan.build(circuit, "AAAABBBB").alternatives()
            >>> [(plan.predicted.width, plan.predicted.circuits) for plan in plans]
            [(2, 60), (3, 35), (4, 10), (8, 1)]
        """
        search = AutoCut(max(1, self.predicted.width)) if search is None else search
        width = search.max_qubits
        if not isinstance(width, int):
            raise InputError(f"`max_qubits` is {width}: give one width to compare it with others")
        plans: list[CutPlan] = []
        for other in other_widths(width):
            own = replace(search, max_qubits=other, seconds=search.seconds / 4)
            with suppress(CutError):
                plan = CutPlan.build(self.circuit, own, self.observed)
                if not plans or plan.predicted.price < plans[-1].predicted.price:
                    plans.append(plan)
        return plans

    def _check_circuit(self, circuit: QuantumCircuit) -> None:
        """Raise `CutError` unless a circuit is the one the plan was built from."""
        if self.circuit.num_qubits != circuit.num_qubits:
            raise CutError(
                f"the plan was built for {self.circuit.num_qubits} qubits, the circuit has "
                f"{circuit.num_qubits}: build a plan from this circuit"
            )
        uncut = [CutPlan.build(c, None) for c in (self.circuit, circuit)]
        names = [[p.name for p in c.parameters] for c in (self.circuit, circuit)]
        if uncut[0].key != uncut[1].key or names[0] != names[1]:
            raise CutError(
                "the plan was built for another circuit, with other gates or parameters: build a "
                "plan from this circuit"
            )

    def for_observables(self, support: Iterable[int]) -> CutPlan:
        """The plan without what cannot reach an observable on the qubits of `support`."""
        qubits = frozenset(support)
        if qubits not in self._cones:
            kept = self.normal.light_cone(qubits)
            chosen = {self.normal.operations[i] for i in self.cut_operations}
            numbers = frozenset(i for i, op in enumerate(kept.operations) if op in chosen)
            if len(self._cones) >= _MOST_CONES:
                self._cones.clear()
            self._cones[qubits] = CutPlan(self.circuit, self.label, kept, numbers, qubits)
        return self._cones[qubits]

    def __repr__(self) -> str:
        return f"<CutPlan: {summary(self)}>"

    def _repr_html_(self) -> str:
        return self.draw().svg

    def draw(self, basis: SettingBasis = "full") -> Drawing:
        """The plan as a picture: the circuit in its fragments' colours, and the graph of cuts.

        Numbers of cuts and fragments are places in `cuts` and `fragments`. Circuits of many qubits
        or gates are folded, and drawn without the names of gates.

        Args:
            basis: Of the settings whose circuits are counted.

        Returns:
            An SVG, which notebooks show and `Drawing.save` writes.

        Example:
            >>> from qiskit import QuantumCircuit
            >>> circuit = QuantumCircuit(2)
            >>> _ = circuit.cx(0, 1)
            >>> plan = CutPlan.build(circuit, "AB")
            >>> plan
            <CutPlan: 2 qubits in 2 fragments of 1, 1 gate cut, 10 circuits a measurement basis>
            >>> plan.draw().svg[:4]
            '<svg'
        """
        return draw(self, basis)

    @property
    def num_cuts(self) -> int:
        """Number of cuts made."""
        return len(self.cuts)

    @property
    def num_fragments(self) -> int:
        """Number of fragments."""
        return len(self.fragments)

    @cached_property
    def num_terms(self) -> int:
        """Terms of the quasi-probability decomposition, which nothing here enumerates."""
        return prod(cut.num_terms for cut in self.cuts)

    @cached_property
    def sampling_overhead(self) -> float:
        """Factor in shots over an uncut run for the same error, were terms sampled: Π γ²."""
        return prod((cut.sampling_overhead for cut in self.cuts), start=1.0)

    @cached_property
    def predicted(self) -> Prediction:
        """What the plan is likely to cost, from its cuts alone."""
        return predict(self.fragments, self.cuts)

    def settings_per_fragment(self, basis: SettingBasis = "full") -> tuple[int, ...]:
        """Circuits a fragment needs per measurement basis, one number per fragment."""
        return tuple(fragment.num_settings(basis) for fragment in self.fragments)

    @cached_property
    def key(self) -> str:
        """Content hash of the plan: circuit structure, parameters by name, and cuts."""
        lines = [f"{self.normal.num_qubits} {sorted(self.observed)} {self.normal.outputs}"]
        expressions = self.normal.angles.expressions
        for index, operation in enumerate(self.normal.operations):
            angles = [str(expressions[a]) for a in operation.angles]
            mark = "cut" if index in self.cut_operations else ""
            lines.append(f"{operation.instruction.name} {operation.qubits} {angles} {mark}")
            if operation.kernel is not None:
                lines.append(gate_key(operation.instruction))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def check_cuts(cuts: object) -> None:
    """Raise `InputError` for what cannot be the cuts of any circuit."""
    if isinstance(cuts, AutoCut | CutAt | CutPlan | None):
        return
    try:
        if isinstance(cuts, Mapping | Set | Iterator):
            raise TypeError("labels need an order, and are read for every circuit")
        hash(tuple(cast(Labels, cuts)))
    except TypeError as error:
        raise InputError(
            f"`cuts` is {described(cuts)}: give one hashable label per qubit, an AutoCut, a "
            "CutAt, a CutPlan or None"
        ) from error


def _check_labels(labels: Labels, circuit: QuantumCircuit) -> list[Hashable]:
    check_cuts(labels)
    given = list(labels)
    if len(given) != circuit.num_qubits:
        meant = f", or `CutAt({shortened(given)})` to cut these instructions" * can_cut(
            circuit, given
        )
        raise CutError(
            f"`cuts` labels {len(given)} qubits, the circuit has {circuit.num_qubits}: "
            f"give one label per qubit{meant}"
        )
    if any(label is None for label in given):
        raise CutError(
            f"`cuts` leaves qubit {given.index(None)} without a label: give one label per qubit"
        )
    return given
