"""What depends on structure alone, made once: plans, their networks and experiments."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qiskit import QuantumCircuit
from qiskit.circuit import ControlledGate, Operation, Parameter, ParameterExpression

from .cutting import AutoCut, CutPlan, Labels, SettingBasis
from .reconstruction import Network
from .records import CircuitInfo
from .subexperiments import FragmentExperiment, Observables, Pauli, Shifts, restrict

_MOST_CIRCUITS = 64


@dataclass(frozen=True)
class Cost:
    """Bytes a batch takes: per row of each experiment at a worker and in its result, per query."""

    worker: tuple[int, ...]
    result: tuple[int, ...]
    query: int


@dataclass(frozen=True, eq=False)
class Prepared:
    """A plan with everything its queries need besides bindings.

    Attributes:
        plan: The plan, reduced to what reaches the observables.
        network: Its contraction.
        experiments: What to run of each fragment.
        term_paulis: Per fragment, the Pauli of each term of the observables.
    """

    plan: CutPlan
    network: Network
    experiments: tuple[FragmentExperiment, ...]
    term_paulis: tuple[NDArray[np.intp], ...]

    @cached_property
    def circuit_info(self) -> CircuitInfo:
        """The circuit, for records."""
        circuit = self.plan.circuit
        return CircuitInfo(circuit.num_qubits, circuit.depth(), self.plan.key)

    def shifts(self, parameters: tuple[int, ...]) -> tuple[Shifts, ...]:
        """Per fragment, the angles that depend on the parameters numbered so."""
        if parameters not in self._shifts:
            table = self.plan.normal.angles
            self._shifts[parameters] = tuple(
                Shifts.of(fragment, table, parameters) for fragment in self.plan.fragments
            )
        return self._shifts[parameters]

    @cached_property
    def exact_cost(self) -> Cost:
        """Memory of exact values."""
        return self._cost(sampled=False)

    @cached_property
    def sampled_cost(self) -> Cost:
        """Memory of sampled values."""
        return self._cost(sampled=True)

    def _cost(self, *, sampled: bool) -> Cost:
        return Cost(
            tuple(e.worker_bytes(sampled=sampled) for e in self.experiments),
            tuple(e.result_bytes(sampled=sampled) for e in self.experiments),
            8 * self.network.elements_per_query(squared=sampled),
        )

    @cached_property
    def _shifts(self) -> dict[tuple[int, ...], tuple[Shifts, ...]]:
        return {}


class Preparation:
    """Plans and what follows from them, remembered for circuits that come again."""

    def __init__(self, cuts: Labels | AutoCut | CutPlan | None, basis: SettingBasis) -> None:
        self._cuts = cuts
        self._basis = basis
        self._plans: OrderedDict[int, tuple[list[Any], CutPlan]] = OrderedDict()
        self._prepared: dict[tuple[int, tuple[Pauli, ...]], Prepared] = {}
        self._lock = Lock()

    def prepare(self, circuit: QuantumCircuit, observables: Observables) -> tuple[Prepared, bool]:
        """The prepared plan, and whether all of it was at hand."""
        with self._lock:
            plan, cached = self._plan(circuit)
            key = (id(plan), observables.terms)
            if key not in self._prepared:
                cached = False
                self._prepared[key] = self._make(plan, observables)
            return self._prepared[key], cached

    def _plan(self, circuit: QuantumCircuit) -> tuple[CutPlan, bool]:
        structure = _structure(circuit)
        for key, (known, plan) in reversed(self._plans.items()):
            if known == structure:
                self._plans.move_to_end(key)
                return plan, True
        plan = CutPlan.build(circuit.copy(), self._cuts)
        self._plans[id(plan)] = structure, plan
        if len(self._plans) > _MOST_CIRCUITS:
            forgotten, _ = self._plans.popitem(last=False)
            self._prepared = {k: v for k, v in self._prepared.items() if k[0] != forgotten}
        return plan, False

    def _make(self, plan: CutPlan, observables: Observables) -> Prepared:
        cone = plan.for_observables(observables.support)
        experiments, places = [], []
        for fragment in cone.fragments:
            paulis, index = restrict(observables.terms, fragment)
            experiments.append(FragmentExperiment(fragment, tuple(paulis), self._basis))
            places.append(index)
        return Prepared(cone, Network(cone), tuple(experiments), tuple(places))


def _structure(circuit: QuantumCircuit) -> list[Any]:
    """What two circuits must share to share a plan; compared, never hashed.

    Qiskit compares gates to a tolerance, which is no ground to return one circuit's value for
    another's; this compares numbers exactly.
    """
    return [circuit.num_qubits, circuit.qubits] + [
        (i.name, [_exactly(p) for p in i.params], i.qubits)
        if i.is_standard_gate()
        else (_gate_structure(i.operation), i.qubits, i.clbits)
        for i in circuit.data
    ]


def _gate_structure(operation: Operation) -> list[Any]:
    parameters = [_exactly(p) for p in getattr(operation, "params", ())]
    structure: list[Any] = [type(operation), operation.name, parameters]
    if isinstance(operation, ControlledGate):
        return [*structure, operation.ctrl_state, _gate_structure(operation.base_gate)]
    if any(isinstance(p, bytes) for p in parameters):  # a matrix says it all
        return structure
    definition = getattr(operation, "definition", None)
    return structure if definition is None else [*structure, _structure(definition)]


def _exactly(parameter: Any) -> Any:
    """A gate's parameter as something that is equal to nothing but itself."""
    if isinstance(parameter, np.ndarray):
        return parameter.tobytes()
    if isinstance(parameter, Parameter) or not isinstance(parameter, ParameterExpression):
        return parameter
    return str(parameter), parameter.parameters
