"""Peers that cut circuits, qiskit-addon-cutting and QCut: one value, and the shots it took.

Both estimate Σ_t c_t Π_f m_tf: a sum over the terms t of a quasi-probability decomposition, each
a product over the fragments f of means of outcomes ±1, with a circuit and shots of its own for
every term and fragment. `addon` and `qcut` run that as the peers' own tutorials do. As all means
are independent, their exact expectations μ_tf give the variance of such runs in closed form, with
n_t shots for each circuit of term t:

    Var = Σ_t c_t² (Π_f (μ_tf² + (1 - μ_tf²) / n_t) - Π_f μ_tf²)

`Terms` holds that: the variance of the runs themselves, without the minutes they take.

The observable is Z on every qubit, so that every classical bit of a circuit counts.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from math import inf
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit.library import CXGate
from qiskit.primitives import (
    BaseSamplerV2,
    PrimitiveJob,
    PrimitiveResult,
    SamplerPubLike,
    SamplerPubResult,
)
from qiskit.quantum_info import Pauli, PauliList, Statevector
from qiskit_aer.primitives import SamplerV2

from benchmarks._workload import Floats
from distributed_estimator.reference.stages import flatten

ADDON_MISSING = (
    "qiskit-addon-cutting is not installed: pip install 'distributed-estimator[reference]'"
)
# With its dependencies, QCut 2.2 would put an older Aer in place of the one that is measured.
QCUT_MISSING = "QCut is not installed: pip install --no-deps QCut pymetis"


@dataclass(frozen=True)
class Estimate:
    """What one run returned.

    Attributes:
        shots: Of all circuits together.
        circuits: How many there were.
    """

    value: float
    shots: int
    circuits: int


@dataclass(frozen=True, eq=False)
class Terms:
    """The exact means behind a peer's estimate, and how its shots are split.

    Attributes:
        coefficients: Of the terms.
        means: Exact mean outcome of every circuit, shape ``(terms, fragments)``.
        shares: Shots of a circuit of each term, relative to the largest.
    """

    coefficients: Floats
    means: Floats
    shares: Floats

    @staticmethod
    def of(coefficients: Iterable[float], means: Sequence[Sequence[float]]) -> Terms:
        """The same shots for every circuit, which is what both peers do."""
        weights = np.array(list(coefficients), dtype=float)
        return Terms(weights, np.array(means, dtype=float), np.ones(len(weights)))

    @property
    def value(self) -> float:
        """The expectation value that the terms add up to."""
        return float(self.coefficients @ self.means.prod(axis=1))

    @property
    def num_circuits(self) -> int:
        """How many circuits a run takes."""
        return int(self.means.size)

    @property
    def is_balanced(self) -> bool:
        """Whether all terms weigh the same, so that `weighted` changes nothing."""
        return float(np.ptp(abs(self.coefficients))) < 1e-9

    def weighted(self) -> Terms:
        """Shots in proportion to the coefficients, which users of the addon have asked for."""
        return replace(self, shares=abs(self.coefficients) / abs(self.coefficients).max())

    def shots(self, most: int) -> int:
        """Of all circuits together, with `most` for a circuit of the heaviest term."""
        return int(self._split(most).sum() * self.means.shape[1])

    def variance(self, most: int) -> float:
        """Of the estimate, with `most` shots for a circuit of the heaviest term."""
        squares = self.means**2
        noisy = squares + (1 - squares) / self._split(most)[:, None]
        return float(self.coefficients**2 @ (noisy.prod(axis=1) - squares.prod(axis=1)))

    def shots_to(self, precision: float) -> int:
        """The fewest shots with a standard error of at most `precision`."""
        enough = 1
        while self.variance(enough) > precision**2:
            enough *= 2
        low, high = enough // 2, enough  # not enough, enough
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.variance(middle) > precision**2 else (low, middle)
        return self.shots(high)

    def _split(self, most: int) -> Floats:
        return np.ceil(most * self.shares)


def addon_missing() -> str | None:
    """Why qiskit-addon-cutting cannot be measured, or None if it can."""
    return None if find_spec("qiskit_addon_cutting") is not None else ADDON_MISSING


def addon(
    circuit: QuantumCircuit,
    labels: Sequence[Hashable],
    shots: int,
    seed: int,
    num_samples: float = inf,
) -> Estimate:
    """One value from qiskit-addon-cutting and Aer, as the addon's tutorials do it.

    Args:
        circuit: With all its parameters bound.
        labels: One a qubit.
        shots: Of each subexperiment. The tutorials take 2¹² for all, whatever their coefficients.
        seed: Of Aer and, where terms are sampled, of NumPy's global generator, from which the
            addon draws them.
        num_samples: Of the quasi-probability distribution; infinity, as in the tutorials: every
            term with its own weight.
    """
    from qiskit_addon_cutting import reconstruct_expectation_values

    np.random.seed(seed)  # noqa: NPY002  (the addon takes no generator)
    circuits, coefficients, observables = _addon_experiments(circuit, labels, num_samples)
    sampler = SeededAer(seed)
    results = {label: sampler.run(of, shots=shots).result() for label, of in circuits.items()}
    (value,) = reconstruct_expectation_values(results, coefficients, observables)
    count = sum(map(len, circuits.values()))
    return Estimate(float(value), shots * count, count)


def addon_terms(circuit: QuantumCircuit, labels: Sequence[Hashable]) -> Terms:
    """The means behind `addon` with every term."""
    circuits, coefficients, _ = _addon_experiments(circuit, labels, inf)
    parities = _Parities()
    means = [[parities.of(one) for one in of] for of in circuits.values()]
    return Terms.of([weight for weight, _ in coefficients], list(zip(*means, strict=True)))


def _addon_experiments(
    circuit: QuantumCircuit, labels: Sequence[Hashable], num_samples: float
) -> tuple[dict[Hashable, list[QuantumCircuit]], Any, Any]:
    from qiskit_addon_cutting import generate_cutting_experiments, partition_problem

    flat = _flat(circuit, labels)
    problem = partition_problem(flat, labels, PauliList(["Z" * flat.num_qubits]))
    circuits, coefficients = generate_cutting_experiments(
        problem.subcircuits, problem.subobservables, num_samples=num_samples
    )
    return circuits, coefficients, problem.subobservables


class SeededAer(BaseSamplerV2):
    """Aer's sampler on one thread, with a seed for every circuit.

    With one seed, all circuits of a job and all jobs draw the same numbers, so that means which are
    multiplied are not independent, and their product is biased.
    """

    def __init__(self, seed: int) -> None:
        self._seeds = np.random.default_rng(seed)

    def run(
        self, pubs: Iterable[SamplerPubLike], *, shots: int | None = None
    ) -> PrimitiveJob[PrimitiveResult[SamplerPubResult]]:
        """Run the circuits one after the other."""
        job = PrimitiveJob(self._run, list(pubs), shots)
        job._submit()
        return job

    def _run(
        self, pubs: list[SamplerPubLike], shots: int | None
    ) -> PrimitiveResult[SamplerPubResult]:
        options = {"backend_options": {"max_parallel_threads": 1}}
        seeds = self._seeds.integers(2**31, size=len(pubs)).tolist()
        samplers = [SamplerV2(seed=seed, options=options) for seed in seeds]
        results = (
            s.run([pub], shots=shots).result() for s, pub in zip(samplers, pubs, strict=True)
        )
        return PrimitiveResult([one for result in results for one in result])


def qcut_missing() -> str | None:
    """Why QCut cannot be measured, or None if it can."""
    return None if find_spec("QCut") is not None else QCUT_MISSING


def qcut(circuit: QuantumCircuit, labels: Sequence[Hashable], shots: int, seed: int) -> Estimate:
    """One value from QCut and Aer, as QCut's usage page does it.

    All terms are run, however many: beyond 1000 QCut's default draws 1000 of them, and the error
    of that no number of shots removes.

    Args:
        circuit: With all its parameters bound.
        labels: One a qubit; gates between labels are cut.
        shots: Of each circuit.
        seed: Of Aer.
    """
    import QCut

    experiment = _qcut_experiment(circuit, labels)
    results = QCut.run_experiments(experiment, shots=shots, backend=SeededAer(seed))
    value = float(QCut.estimate_expectation_values(results))
    return Estimate(value, shots * experiment.num_circuits, experiment.num_circuits)


def qcut_terms(circuit: QuantumCircuit, labels: Sequence[Hashable]) -> Terms:
    """The means behind `qcut`.

    QCut reads a bit 0 as -1, unwritten bits too, so that each bit turns the sign of a term.
    """
    experiment = _qcut_experiment(circuit, labels)
    parities = _Parities()
    means, signs = [], []
    for number, (circuits,) in enumerate(experiment.experiments):
        means.append([parities.of(one) for one in circuits.values()])
        bits = sum(sum(experiment.qpd_bits[number, 0, place]) for place in circuits)
        signs.append((-1) ** bits)
    return Terms.of(np.array(experiment.coefficients) * signs, means)


def _qcut_experiment(circuit: QuantumCircuit, labels: Sequence[Hashable]) -> Any:
    import QCut

    flat = _flat(circuit, labels)
    marked = QuantumCircuit(flat.num_qubits)
    for item in flat.data:
        qubits = [flat.find_bit(bit).index for bit in item.qubits]
        if len({labels[qubit] for qubit in qubits}) > 1:
            marked.append(**QCut.cutGate(item.operation, *qubits))
        else:
            marked.append(item.operation, qubits)
    options = QCut.CutOptions(expansion="exact")
    parts = QCut.get_locations_and_subcircuits(marked, options=options)
    return QCut.get_experiment_circuits(parts, "Z" * flat.num_qubits)


def _flat(circuit: QuantumCircuit, labels: Sequence[Hashable]) -> QuantumCircuit:
    return flatten(circuit, lambda qubits: len({labels[qubit] for qubit in qubits}) > 1)


class _Parities:
    """Exact means of the parity of all classical bits; circuits of many terms are the same."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], float] = {}

    def of(self, circuit: QuantumCircuit) -> float:
        """The mean of (-1)^(number of ones)."""
        steps = tuple(_steps(circuit))
        if steps not in self._known:
            self._known[steps] = _parity(circuit)
        return self._known[steps]


def _steps(circuit: QuantumCircuit) -> Iterator[tuple[object, ...]]:
    yield (circuit.num_qubits,)
    for item in circuit.data:
        places = (circuit.find_bit(bit).index for bit in item.qubits)
        yield (item.operation.name, *item.operation.params, *places)


def _parity(circuit: QuantumCircuit) -> float:
    """With measurements and resets moved to qubits of their own, from one state."""
    wires = list(range(circuit.num_qubits))
    places = [[circuit.find_bit(bit).index for bit in item.qubits] for item in circuit.data]
    last = {qubit: number for number, qubits in enumerate(places) for qubit in qubits}
    width, steps, read = circuit.num_qubits, [], []
    for number, (item, qubits) in enumerate(zip(circuit.data, places, strict=True)):
        here = [wires[qubit] for qubit in qubits]
        if item.operation.name == "reset":
            wires[qubits[0]], width = width, width + 1
        elif item.operation.name != "measure":
            steps.append((item.operation, here))
        elif last[qubits[0]] == number:
            read += here
        else:
            steps.append((CXGate(), [*here, width]))
            read.append(width)
            width += 1
    pure = QuantumCircuit(width)
    for operation, here in steps:
        pure.append(operation, here)
    return float(Statevector(pure).expectation_value(Pauli("Z" * len(read)), read).real)
