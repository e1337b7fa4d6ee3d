"""What the tests of the estimator share: reference values, random circuits and short calls."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Delay
from qiskit.circuit.library import PauliEvolutionGate
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.quantum_info import SparsePauliOp, Statevector
from qiskit_addon_cutting.instructions import CutWire, Move

from distributed_estimator import DistributedEstimator, EstimatorOptions, Mitigation
from distributed_estimator.backends import StatevectorBackend
from distributed_estimator.backends.statevector import _program_of
from distributed_estimator.subexperiments import FragmentExperiment, FragmentResult, Readout, Task
from distributed_estimator.training.workloads import (
    FEATURE_RANGE,
    Workload,
    WorkloadConfig,
    load_workload,
)


class Done(NamedTuple):
    """What a command of `dest` came to."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


def refused(done: Done) -> str:
    """The one line on stderr that a refusal is, with exit code 2 and nothing on stdout."""
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith("dest: ")
    assert done.err[:-1].isprintable()
    return done.err


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file of this process grows beyond `size` bytes meanwhile: a disk that is full, in small.

    Writes fail with "File too large", as they do with "No space left on device".
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def reference(circuit, observable, values=None):
    """The expectation value from Qiskit's `Statevector`.

    A `CutWire` is the identity; a `Move` swaps and leaves its source in |0>, its target having
    been reset before; a `PauliEvolutionGate` is the product formula of its synthesis.
    """
    bound = circuit
    if values is not None:
        bound = circuit.assign_parameters(np.asarray(values, dtype=float).tolist())
    plain = without_marks(bound)
    extra = "I" * (plain.num_qubits - circuit.num_qubits)
    operator = as_operator(observable)
    if extra:
        operator = SparsePauliOp(extra).tensor(operator)
    return float(np.real(Statevector(plain).expectation_value(operator)))


def without_marks(circuit):
    """The circuit for `Statevector`: one more qubit for every `Move`, to reset its target with."""
    moves = sum(isinstance(item.operation, Move) for item in circuit.data)
    plain = QuantumCircuit(circuit.num_qubits + moves)
    fresh = iter(range(circuit.num_qubits, plain.num_qubits))
    for item in circuit.data:
        qubits = [circuit.find_bit(q).index for q in item.qubits]
        if isinstance(item.operation, CutWire | Delay):
            continue
        if isinstance(item.operation, Move):
            plain.swap(next(fresh), qubits[1])
            plain.swap(*qubits)
        elif isinstance(item.operation, PauliEvolutionGate):
            plain.compose(item.operation.definition, qubits, inplace=True)
        else:
            plain.append(item.operation, qubits)
    return plain


def as_operator(observable):
    """Anything that Qiskit takes as one observable, as a `SparsePauliOp`."""
    array = ObservablesArray.coerce(observable)
    assert array.ndim == 0, "one observable at a time"
    return SparsePauliOp.from_sparse_observable(array.sparse_observables_array()[()])


def run(circuit, observables, cuts=None, values=None, *, precision=0, estimator=None, **options):
    """The result of one PUB on two threads; exact unless told otherwise."""
    if estimator is None:
        estimator = DistributedEstimator(cuts, workers=2, options=EstimatorOptions(**options))
    pub = (circuit, observables) if values is None else (circuit, observables, values)
    return estimator.run([pub], precision=precision).result()[0]


def value(circuit, observable, cuts=None, values=None, **options):
    """The exact value of one query."""
    return float(run(circuit, observable, cuts, values, **options).data.evs)


def entangled(num_qubits, seed, *, layers=2, gate="cx"):
    """A chain of random rotations and two-qubit gates that give generic values."""
    rng = np.random.default_rng(seed)
    circuit = QuantumCircuit(num_qubits)
    for _ in range(layers):
        for qubit in range(num_qubits):
            circuit.u(*rng.uniform(-3, 3, 3), qubit)
        for qubit in range(num_qubits - 1):
            getattr(circuit, gate)(qubit, qubit + 1)
    for qubit in range(num_qubits):
        circuit.u(*rng.uniform(-3, 3, 3), qubit)
    return circuit


def random_paulis(num_qubits, count, seed):
    """A sum of distinct random Pauli strings with random weights."""
    rng = np.random.default_rng(seed)
    terms = {}
    for _ in range(count):
        terms["".join(rng.choice(list("IXYZ"), num_qubits))] = rng.normal()
    return SparsePauliOp(list(terms), list(terms.values()))


WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {module!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
{program}
"""


def run_without(module, program, folder=None):
    """Run a program in a process of its own in which a module is not installed."""
    code = WITHOUT.format(module=module, program=program)
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )


def load(name: str = "iris", **fields: object) -> Workload:
    return load_workload(WorkloadConfig(str(name), **fields))


def same(one: Workload, other: Workload) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("x_train", "y_train", "x_test", "y_test")
    )


def samples(rows: int = 40, seed: int = 0) -> dict[str, list[object]]:
    """A table of two classes that `width` tells apart."""
    rng = np.random.default_rng(seed)
    kind = np.arange(rows) % 2
    return {
        "width": (kind + rng.normal(0, 0.1, rows)).tolist(),
        "height": (1000 * rng.normal(size=rows)).tolist(),
        "count": rng.permutation(rows).tolist(),
        "kind": ["yes" if one else "no" for one in kind],
    }


def write_csv(path: Path, table: dict[str, list[object]]) -> Path:
    rows = [table.keys(), *zip(*table.values(), strict=True)]
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in rows), "utf-8")
    return path


def bits(kinds: Sequence[str]) -> dict[str, list[object]]:
    """A table whose rows can be told from their features, however these are scaled."""
    places = range(len(kinds).bit_length())
    return {
        **{f"bit{place}": [row >> place & 1 for row in range(len(kinds))] for place in places},
        "kind": list(kinds),
    }


def rows_of(x: np.ndarray) -> list[int]:
    """The rows of `bits` that some features belong to."""
    return ((x > FEATURE_RANGE[1] / 2) @ 2 ** np.arange(x.shape[1])).tolist()


@dataclass(frozen=True)
class Misread(StatevectorBackend):
    """A simulator that misreads bits, and whose gates have noise; see `NoisyBackend`.

    Local qubits and slots are measured on physical qubits that change with the setting and the
    fragment, all of the same device.

    Attributes:
        flips: How likely each physical qubit is misread.
        calibration: Shots by which that is known; None: it is known exactly.
        seeds: That of the calibration, alone, which may be changed between runs.
        drawn: Whether shots are drawn; False: counts are what is expected, rounded.
        kept: What noise of gates leaves of every bit at each noise factor, which is not calibrated.
        factor: The noise factor.
    """

    flips: tuple[float, ...] = (0.0,)
    calibration: int | None = None
    seeds: list[int] = field(default_factory=lambda: [0], compare=False)
    drawn: bool = True
    kept: tuple[tuple[int, float], ...] = ((1, 1.0),)
    factor: int = 1

    name = "misread"
    exact = False

    @property
    def identity(self) -> str:
        return repr(self)

    def mitigated(self, mitigation: Mitigation, factor: int = 1) -> Misread:
        return replace(self, factor=factor)

    def places(self, experiment: FragmentExperiment) -> tuple[np.ndarray, np.ndarray]:
        """Physical qubits of local qubits and slots in every setting; -1: not measured."""
        numbers = np.arange(experiment.layout.num_settings)[:, None] + experiment.fragment.index
        qubits = np.arange(experiment.fragment.num_qubits)
        measured = {qubit for group in experiment.groups for qubit, _ in group.basis}
        observed = (numbers + qubits) % len(self.flips)
        observed[:, [qubit not in measured for qubit in qubits]] = -1
        slots = (numbers + 1 + np.arange(len(experiment.fragment.slots))) % len(self.flips)
        for family in experiment.layout.families:
            slots[np.ix_(family.numbers, ~np.array(family.measured, dtype=bool))] = -1
        return observed, slots

    def readout(self, experiment: FragmentExperiment, run: object = None) -> Readout:
        found, stderrs = np.array(self.flips), np.zeros(len(self.flips))
        if self.calibration is not None:
            rng = np.random.default_rng(self.seeds)
            found = rng.binomial(self.calibration, found) / self.calibration
            stderrs = np.sqrt(found * (1 - found) / self.calibration)
        qubits = np.arange(len(found))
        return Readout("device", qubits, found, stderrs, *self.places(experiment))

    def run(self, experiment: FragmentExperiment, task: Task) -> FragmentResult:
        program = _program_of(experiment.fragment)
        states, layout = program.run(task.angles), experiment.layout
        runs = experiment.runs_of(task.circuits)
        shots = np.broadcast_to(task.shots, (len(task.angles), *runs.shape))
        rng, counts = np.random.default_rng(task.seed), []
        for number, group in enumerate(experiment.groups):
            table = layout.probabilities(program.coordinates(states, group))
            table = self.misread(experiment, number, table)
            own = shots[:, number]
            if self.drawn:
                table = layout.draw(table, own, rng)
            else:
                table = np.rint(table * own[:, None, layout.setting_of])
            counts.append(group.signed(table * runs[number, layout.setting_of]))
        return FragmentResult(None, tuple(counts))

    def misread(self, experiment: FragmentExperiment, number: int, table: np.ndarray) -> np.ndarray:
        """Probabilities of outcomes, of parities of bits that are flipped, and of slots."""
        group, layout = experiment.groups[number], experiment.layout
        observed, slots = self.places(experiment)
        flips = np.array(self.flips)
        noise = (1 - dict(self.kept).get(self.factor, 1.0)) / 2
        for qubit, _ in group.basis:
            parities = sum(1 << bit for bit, own in enumerate(group.generators) if qubit in own)
            own = flips[observed[:, qubit]][layout.setting_of]
            own = own + noise - 2 * own * noise
            table = (1 - own) * table + own * table[:, np.arange(table.shape[1]) ^ parities]
        for family in layout.families:
            measured = np.flatnonzero(family.measured)
            part = table[..., family.places]
            for axis, slot in enumerate(measured):
                own = flips[slots[family.numbers, slot]][:, None]
                other = np.arange(part.shape[-1]) ^ (1 << (len(measured) - 1 - axis))
                part = (1 - own) * part + own * part[..., other]
            table[..., family.places] = part
        return table
