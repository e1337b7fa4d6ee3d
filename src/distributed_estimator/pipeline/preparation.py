"""Plans, networks and experiments, which depend on structure alone: made once and remembered."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from qiskit import QuantumCircuit

from ..cutting import AutoCut, CutPlan, Cuts, IntArray, SettingBasis
from ..cutting.gates import structure_key, structure_of
from ..errors import BackendError
from ..forks import Lock
from ..reconstruction import Network
from ..reconstruction.derivatives import Shifts
from ..records import CircuitInfo
from ..subexperiments import (
    Backend,
    FragmentExperiment,
    FragmentWork,
    Mitigation,
    NoisyBackend,
    Observables,
    Outcomes,
    Pauli,
    PlacingBackend,
    restrict,
)
from .priors import Priors

_MOST_CIRCUITS = 64
_MOST_PREPARED = 256


@dataclass(frozen=True, eq=False)
class Prepared:
    """A plan with everything that its queries need besides bindings.

    The plan is reduced to what reaches the observables; `term_paulis` has the Pauli of each of
    their terms, per fragment. The experiments with their backend are the `work` sent to workers.
    """

    plan: CutPlan
    network: Network
    experiments: tuple[FragmentExperiment, ...]
    term_paulis: tuple[IntArray, ...]
    work: FragmentWork

    @cached_property
    def circuit_info(self) -> CircuitInfo:
        """The circuit, for records."""
        circuit = self.plan.circuit
        return CircuitInfo(circuit.num_qubits, circuit.depth(), structure_key(circuit))

    @property
    def num_circuits(self) -> int:
        """Circuits of all fragments for one binding."""
        return sum(e.num_circuits for e in self.experiments if not e.is_trivial)

    @property
    def max_qubits(self) -> int:
        """Qubits of the widest fragment that has circuits to run; 0 where none has."""
        return max((e.fragment.num_qubits for e in self.experiments if not e.is_trivial), default=0)

    @cached_property
    def parameters(self) -> tuple[IntArray, ...]:
        """Per fragment, the numbers of the parameters that its angles are functions of."""
        angles = self.plan.normal.angles
        return tuple(
            np.array(sorted(set().union(*map(angles.depends_on, f.angles))), dtype=np.intp)
            for f in self.plan.fragments
        )

    @cached_property
    def priors(self) -> Priors:
        """What runs saw, for those that reuse it."""
        return Priors()

    def mitigated(self, mitigation: Mitigation | None, factor: int) -> Prepared:
        """The same on the mitigated backend; what runs remember stays with the one it is made of.

        It is remembered, but for several devices, of which one may be gone since.
        """
        if mitigation is None:
            return self
        backend, key = self.work.backend, (mitigation, factor)
        if key not in self._mitigated or isinstance(backend, PlacingBackend):
            assert isinstance(backend, NoisyBackend), "the pipeline has checked it"
            work = FragmentWork(backend.mitigated(mitigation, factor), self.experiments)
            self._mitigated[key] = replace(self, work=work)
        return self._mitigated[key]

    @cached_property
    def _mitigated(self) -> dict[tuple[Mitigation, int], Prepared]:
        return {}

    def shifts(self, parameters: tuple[int, ...]) -> tuple[Shifts, ...]:
        """Per fragment, the angles that depend on the parameters numbered so."""
        if parameters not in self._shifts:
            table = self.plan.normal.angles
            self._shifts[parameters] = tuple(
                Shifts(fragment, table, parameters) for fragment in self.plan.fragments
            )
        return self._shifts[parameters]

    @cached_property
    def _shifts(self) -> dict[tuple[int, ...], tuple[Shifts, ...]]:
        return {}


class Preparation:
    """Plans with their networks and experiments, remembered for circuits that come again."""

    def __init__(self, cuts: Cuts, basis: SettingBasis, backend: Backend) -> None:
        self._cuts = cuts
        self._backend = backend
        self._basis = basis
        self._plans: OrderedDict[int, tuple[list[Any], CutPlan]] = OrderedDict()
        self._prepared: OrderedDict[tuple[int, tuple[Pauli, ...]], Prepared] = OrderedDict()
        self._lock = Lock()

    def prepare(
        self, circuit: QuantumCircuit, observables: Observables | Outcomes
    ) -> tuple[Prepared, bool]:
        """The prepared plan, and whether all of it was known already.

        Raises:
            BackendError: A fragment is wider than the device.
            CutError: The labels, or the search, do not fit the circuit.
        """
        with self._lock:
            plan, cached = self._plan(circuit, observables.support)
            key = (id(plan), observables.terms)
            if key not in self._prepared:
                cached = False
                self._prepared[key] = self._make(plan, observables)
                if len(self._prepared) > _MOST_PREPARED:
                    self._prepared.popitem(last=False)
            return self._prepared[key], cached

    def _plan(self, circuit: QuantumCircuit, support: frozenset[int]) -> tuple[CutPlan, bool]:
        # Labels say where to cut whatever is observed; a search cuts what can reach it.
        observed = support if isinstance(self._cuts, AutoCut) else None
        structure = [structure_of(circuit), tuple(circuit.parameters), observed]
        for key, (known, plan) in reversed(self._plans.items()):
            if known == structure:
                self._plans.move_to_end(key)
                return plan, True
        plan = CutPlan.build(circuit.copy(), self._cuts, observed)
        self._plans[id(plan)] = structure, plan
        if len(self._plans) > _MOST_CIRCUITS:
            forgotten, _ = self._plans.popitem(last=False)
            for known_key in [k for k in self._prepared if k[0] == forgotten]:
                del self._prepared[known_key]
        return plan, False

    def _make(self, plan: CutPlan, observables: Observables | Outcomes) -> Prepared:
        cone = plan.for_observables(observables.support)
        experiments, places = [], []
        for fragment in cone.fragments:
            paulis, index = restrict(observables.terms, fragment)
            experiments.append(FragmentExperiment(fragment, tuple(paulis), self._basis))
            places.append(index)
        backend = self._backend
        if isinstance(backend, PlacingBackend):
            backend = backend.placed(experiments)
        work = FragmentWork(backend, tuple(experiments))
        prepared = Prepared(cone, Network(cone), work.experiments, tuple(places), work)
        widest, most = prepared.max_qubits, self._backend.max_qubits
        if most is not None and widest > most:
            raise BackendError(
                f"a fragment has {widest} qubits, and the backend {self._backend.name} takes "
                f"{most}: cut more, for instance with AutoCut(max_qubits={most}), or take a "
                "larger device"
            )
        return prepared
