"""Partition, generate and reconstruct, with the addon for a cut circuit and without for an uncut.

Execution lies between `generate` and `reconstruct`, and belongs to the estimator.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from qiskit.circuit import QuantumCircuit
from qiskit.primitives import PrimitiveResult, SamplerPubResult
from qiskit.quantum_info import PauliList, SparsePauliOp
from qiskit_addon_cutting import (
    generate_cutting_experiments,
    partition_problem,
    reconstruct_expectation_values,
)

from ..cutting.gates import structure_key
from ..errors import CutError, InputError
from ..pubs import Pub
from ..records import CircuitInfo
from .circuits import flatten, measured

FloatArray = npt.NDArray[np.float64]
Results = dict[Hashable, list[SamplerPubResult]]
"""Results by fragment label, in the order of the circuits they come from."""


@dataclass(frozen=True)
class Experiments:
    """What `generate` hands over: circuits by fragment label, and what puts results together.

    `num_terms` counts quasi-probability terms; `recipe` is only for `reconstruct`.
    """

    circuits: dict[Hashable, list[QuantumCircuit]]
    num_cuts: int
    num_terms: int
    recipe: Any

    @property
    def num_circuits(self) -> int:
        """How many circuits there are in all fragments together."""
        return sum(map(len, self.circuits.values()))

    @property
    def max_qubits(self) -> int:
        """Qubits of the widest circuit."""
        widths: list[int] = [c.num_qubits for of in self.circuits.values() for c in of]
        return max(widths)


class Stages(ABC):
    """How one query becomes circuits and how their results become a value."""

    setting_basis: str

    @abstractmethod
    def partition(self, circuit: QuantumCircuit, paulis: PauliList) -> Any:
        """Splits a bound circuit and the Pauli strings to measure."""

    @abstractmethod
    def generate(self, problem: Any) -> Experiments:
        """Writes out every circuit to run."""

    @abstractmethod
    def reconstruct(
        self, experiments: Experiments, results: Results, weights: FloatArray
    ) -> tuple[float, float]:
        """The value of Σ weight · Pauli string, and its standard error (NaN: not known)."""


class CutStages(Stages):
    """The addon's workflow: `partition_problem` to `reconstruct_expectation_values`.

    Every term of the decomposition is written out (no sampling of terms). The addon gives no
    standard error, and none is made up: it is NaN.
    """

    setting_basis = "qpd"

    def __init__(self, labels: Sequence[Hashable]) -> None:
        self.labels = tuple(labels)

    def partition(self, circuit: QuantumCircuit, paulis: PauliList) -> Any:
        """One subcircuit and its part of the Pauli strings for each label.

        Raises:
            CutError: The addon cannot cut a gate, or a qubit labelled None is in use.
        """
        try:
            return partition_problem(circuit, self.labels, paulis)
        except ValueError as error:
            raise CutError(
                f"`cuts` cannot cut this circuit by {self.labels!r}: {error} Give other labels, or "
                "transpile the gates across them to CX or CZ first"
            ) from error

    def generate(self, problem: Any) -> Experiments:
        """Every term of the decomposition, for every fragment and commuting group."""
        circuits, coefficients = generate_cutting_experiments(
            problem.subcircuits, problem.subobservables, num_samples=np.inf
        )
        recipe = (coefficients, problem.subobservables)
        return Experiments(circuits, len(problem.bases), len(coefficients), recipe)

    def reconstruct(
        self, experiments: Experiments, results: Results, weights: FloatArray
    ) -> tuple[float, float]:
        """The addon's sum over terms, fragments and shots."""
        coefficients, observables = experiments.recipe
        by_label = {label: PrimitiveResult(of) for label, of in results.items()}
        values = reconstruct_expectation_values(by_label, coefficients, observables)
        return float(np.dot(weights, values)), float("nan")


class UncutStages(Stages):
    """The whole circuit, measured once for each group of qubit-wise commuting Pauli strings.

    The standard error is the sample's own, from the joint outcomes of each group; NaN for a
    single shot.
    """

    setting_basis = "uncut"

    def partition(self, circuit: QuantumCircuit, paulis: PauliList) -> Any:
        """The unchanged circuit, and the Pauli strings in groups with their places in the sum."""
        order = {pauli.to_label(): index for index, pauli in enumerate(paulis)}
        groups = paulis.group_commuting(qubit_wise=True)
        places = [[order[label] for label in group.to_labels()] for group in groups]
        return circuit, list(zip(groups, places, strict=True))

    def generate(self, problem: Any) -> Experiments:
        """One measured circuit for each group."""
        circuit, groups = problem
        circuits = [measured(circuit, group) for group, _ in groups]
        return Experiments({None: circuits}, 0, 1, groups)

    def reconstruct(
        self, experiments: Experiments, results: Results, weights: FloatArray
    ) -> tuple[float, float]:
        """Sample means added up; groups are independent, strings of one group are not."""
        value, variance = 0.0, 0.0
        for (group, places), result in zip(experiments.recipe, results[None], strict=True):
            outcomes = _signs(result, group) @ weights[places]
            value += float(outcomes.mean())
            shots = len(outcomes)
            variance += float(outcomes.var(ddof=1)) / shots if shots > 1 else float("nan")
        return value, variance**0.5


def _signs(result: SamplerPubResult, group: PauliList) -> FloatArray:
    """Eigenvalue of each Pauli string of a group in each shot, shape (shots, strings)."""
    packed = result.data.meas.array  # (shots, bytes), big-endian
    bits = np.unpackbits(packed, axis=-1)[:, ::-1][:, : group.num_qubits].astype(np.int64)
    support = (group.x | group.z).astype(np.int64)
    signs: FloatArray = 1.0 - 2.0 * ((bits @ support.T) % 2)
    return signs


@dataclass(frozen=True)
class Problem:
    """A PUB with its circuit flattened, and the stages that will handle its queries.

    Attributes:
        pub: The PUB.
        circuit: Its circuit in gates that the addon cuts and Aer runs.
        stages: How its queries are handled.
    """

    pub: Pub
    circuit: QuantumCircuit
    stages: Stages

    @staticmethod
    def of(pub: Pub, labels: tuple[Hashable, ...] | None) -> Problem:
        """Make a PUB ready to run.

        Raises:
            InputError: The precision is 0; or, as `CircuitError` or `CutError`, circuit or labels
                are to blame.
        """
        circuit = pub.circuit
        if pub.precision == 0:
            raise InputError(
                "`precision` is 0, and the reference samples: give a positive number or None (an "
                "exact value takes `DistributedEstimator` on its own simulator)"
            )
        if labels is not None and len(labels) != circuit.num_qubits:
            raise CutError(
                f"`cuts` labels {len(labels)} qubits, the circuit has {circuit.num_qubits}: "
                "give one label per qubit"
            )

        def spans(qubits: tuple[int, ...]) -> bool:
            return labels is not None and len({labels[qubit] for qubit in qubits}) > 1

        flat = flatten(circuit, spans)
        is_cut = any(
            spans(tuple(flat.find_bit(bit).index for bit in item.qubits))
            for item in flat.data
            if item.operation.name != "barrier"
        )
        return Problem(pub, flat, CutStages(labels) if labels and is_cut else UncutStages())

    @property
    def info(self) -> CircuitInfo:
        """The circuit as it was given, for records."""
        circuit = self.pub.circuit
        return CircuitInfo(circuit.num_qubits, circuit.depth(), structure_key(circuit))

    def bind(self, index: tuple[int, ...]) -> QuantumCircuit:
        """The circuit with the parameter values of one query."""
        values = self.pub.values
        row = np.broadcast_to(values, (*self.pub.shape, values.shape[-1]))[index]
        bound = dict(zip(self.pub.circuit.parameters, row.tolist(), strict=True))
        return self.circuit.assign_parameters(bound, strict=False)

    def observable(self, index: tuple[int, ...]) -> tuple[FloatArray, PauliList]:
        """Real weights and Pauli strings of the observable of one query."""
        observable = np.broadcast_to(self.pub.observables, self.pub.shape)[index]
        terms = SparsePauliOp.from_sparse_observable(observable).simplify(atol=0, rtol=0)
        return terms.coeffs.real, terms.paulis
