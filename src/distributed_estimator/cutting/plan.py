"""The cut plan: everything that depends on a circuit's structure alone.

Where to cut is labelled, or found by the search of qiskit-addon-cutting.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import TypeAlias, cast

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit.library import UnitaryGate
from qiskit_addon_cutting import automated_cut_finding as addon
from qiskit_addon_cutting.instructions import CutWire

from ..checks import check_kind, check_whole, described, from_numpy, is_number
from ..errors import CutError, InputError
from .channels import SettingBasis
from .circuit import NormalCircuit, normalise
from .fragments import Cut, Fragment, split
from .gates import gate_key
from .rewrite import Operation

Labels: TypeAlias = Sequence[Hashable]

_MOST_CONES = 256


@dataclass(frozen=True)
class AutoCut:
    """Cuts to be found so that no fragment is wider than the device.

    Attributes:
        max_qubits: Widest fragment allowed.
        gate_cuts: Whether gates may be cut.
        wire_cuts: Whether wires may be cut.
        seed: Seed of the search; the same seed finds the same cuts.
        max_gamma: The search stops when the sampling overhead's square root exceeds it.
        max_backjumps: Longest search, in backjumps; None: no limit.

    Example:
        >>> AutoCut(max_qubits=10).max_qubits
        10
    """

    max_qubits: int
    gate_cuts: bool = True
    wire_cuts: bool = True
    seed: int = 0
    max_gamma: float = 1024.0
    max_backjumps: int | None = 10_000

    def __post_init__(self) -> None:
        check_whole("max_qubits", from_numpy(self.max_qubits), 1)
        check_whole("seed", from_numpy(self.seed), 0)
        if self.max_backjumps is not None:
            check_whole("max_backjumps", from_numpy(self.max_backjumps), 0, ", or None")
        if not (is_number(from_numpy(self.max_gamma)) and self.max_gamma >= 1):
            raise InputError(f"`max_gamma` is {self.max_gamma!r}: give a number of at least 1")
        for name in ("gate_cuts", "wire_cuts"):
            check_kind(name, getattr(self, name), bool, "True or False")
        if not (self.gate_cuts or self.wire_cuts):
            raise InputError("`gate_cuts` and `wire_cuts` are both off: allow one of them")


@dataclass(frozen=True, eq=False)
class CutPlan:
    """A circuit, its fragments and the cuts that join them.

    Built once from the parameterised circuit and used for every binding of its parameters.
    Fragments are the connected components of the circuit without its cuts, so one label may
    give several fragments, and a cut that separates nothing is not made.

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
    def build(circuit: QuantumCircuit, cuts: Labels | AutoCut | CutPlan | None) -> CutPlan:
        """Plan the cuts of a circuit.

        Args:
            circuit: A circuit without classical control, which may hold the addon's `CutWire` and
                `Move`. Measurements, whose outcomes are ignored, and resets are run in the fragment
                of their qubit; final measurements are left out.
            cuts: A label per qubit (character i of a string labels qubit i): gates and
                moves between labels are cut, and every `CutWire`. `AutoCut`: searched for.
                None: nothing is cut. A plan of this very circuit: returned as it is.

        Raises:
            CutError: Labels do not fit the circuit, or the search finds nothing.
            CircuitError: The circuit cannot be cut or estimated.
        """
        if isinstance(cuts, CutPlan):
            cuts._check_circuit(circuit)
            return cuts
        everything = frozenset(range(circuit.num_qubits))
        if cuts is None:
            normal = normalise(circuit, lambda qubits: True)
            return CutPlan(circuit, None, normal, frozenset(), everything)
        if isinstance(cuts, AutoCut):
            normal, chosen = _find_cuts(normalise(circuit, lambda qubits: True, widest=2), cuts)
            plan = CutPlan(circuit, None, normal, chosen, everything)
            width = max((fragment.num_qubits for fragment in plan.fragments), default=0)
            if width > cuts.max_qubits:
                raise CutError(
                    f"no plan under `max_qubits` {cuts.max_qubits} was found, the best needs "
                    f"{width}: allow more qubits, a larger `max_gamma` or both kinds of cut"
                )
            return plan
        labels = _check_labels(cuts, circuit.num_qubits)
        normal = normalise(circuit, lambda qubits: len({labels[q] for q in qubits}) == 1)
        chosen = frozenset(
            index
            for index, operation in enumerate(normal.operations)
            if operation.kind == "cut_wire" or len({labels[q] for q in operation.qubits}) > 1
        )
        text = cuts if isinstance(cuts, str) else ",".join(map(str, labels))
        return CutPlan(circuit, text, normal, chosen, everything)

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
    if isinstance(cuts, AutoCut | CutPlan | None):
        return
    try:
        if isinstance(cuts, Mapping | Set | Iterator):
            raise TypeError("labels need an order, and are read for every circuit")
        hash(tuple(cast(Labels, cuts)))
    except TypeError as error:
        raise InputError(
            f"`cuts` is {described(cuts)}: give one hashable label per qubit, an AutoCut, a "
            "CutPlan or None"
        ) from error


def _check_labels(labels: Labels, num_qubits: int) -> list[Hashable]:
    check_cuts(labels)
    given = list(labels)
    if len(given) != num_qubits:
        raise CutError(
            f"`cuts` labels {len(given)} qubits, the circuit has {num_qubits}: "
            "give one label per qubit"
        )
    if any(label is None for label in given):
        raise CutError(
            f"`cuts` leaves qubit {given.index(None)} without a label: give one label per qubit"
        )
    return given


def _find_cuts(normal: NormalCircuit, search: AutoCut) -> tuple[NormalCircuit, frozenset[int]]:
    """Choose cuts for a circuit whose gates act on at most two qubits, if it does not fit.

    Returns:
        The circuit with the wire cuts found inserted, and the numbers of the operations to cut.
    """
    if any(operation.is_mark for operation in normal.operations):
        raise CutError(
            "the circuit holds `CutWire` or `Move` and `cuts` is an AutoCut: remove the marks, or "
            "give labels instead"
        )
    pairs = [i for i, op in enumerate(normal.operations) if len(op.qubits) == 2]
    if not pairs or normal.num_qubits <= search.max_qubits:
        return normal, frozenset()
    marked = _search(normal, pairs, search)
    operations: list[Operation] = []
    cut: set[int] = set()
    upcoming = iter(range(len(normal.operations)))
    for item in marked.data:
        qubits = tuple(marked.find_bit(q).index for q in item.qubits)
        if item.operation.name == "cut_wire":
            cut.add(len(operations))
            operations.append(Operation(CutWire(), qubits, -1))
            continue
        for index in upcoming:
            operations.append(normal.operations[index])
            if len(normal.operations[index].qubits) == 2:
                break
        if item.operation.name == "qpd_2q":
            cut.add(len(operations) - 1)
    operations.extend(normal.operations[index] for index in upcoming)
    return replace(normal, operations=_placed(operations)), frozenset(cut)


def _search(normal: NormalCircuit, pairs: list[int], search: AutoCut) -> QuantumCircuit:
    """The two-qubit gates alone, bound to where they entangle most, with cuts marked."""
    skeleton = QuantumCircuit(normal.num_qubits)
    for index in pairs:
        operation = normal.operations[index]
        kernel = operation.kernel
        assert kernel is not None
        angles = np.full((1, kernel.num_angles), np.pi / 2)
        skeleton.append(UnitaryGate(kernel.matrices(angles)[0]), operation.qubits)
    try:
        marked, _ = addon.find_cuts(
            skeleton,
            addon.OptimizationParameters(
                seed=search.seed,
                max_gamma=search.max_gamma,
                max_backjumps=search.max_backjumps,
                gate_lo=search.gate_cuts,
                wire_lo=search.wire_cuts,
            ),
            addon.DeviceConstraints(search.max_qubits),
        )
    except Exception as error:  # the addon fails in several ways where there is no solution
        raise CutError(
            f"no plan under `max_qubits` {search.max_qubits} was found for "
            f"{normal.num_qubits} qubits ({error}): allow more qubits or both kinds of cut"
        ) from error
    return marked


def _placed(operations: list[Operation]) -> tuple[Operation, ...]:
    """Give each inserted wire cut the position of the operation that follows it."""
    placed: list[Operation] = []
    following = 0
    for operation in reversed(operations):
        if operation.position < 0:
            operation = replace(operation, position=following)
        following = operation.position
        placed.append(operation)
    return tuple(reversed(placed))
