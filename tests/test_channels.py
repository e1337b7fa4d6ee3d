"""The two sides of a cut and the core between them, put back together."""

from __future__ import annotations

from functools import reduce

import gate_catalogue as catalogue
import numpy as np
import pytest
from helpers import reference, value
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import CXGate, RZZGate, UnitaryGate
from qiskit.quantum_info import PTM, Kraus, Operator, random_unitary
from qiskit_addon_cutting.instructions import CutWire, Move
from qiskit_addon_cutting.qpd import QPDBasis

from distributed_estimator.cutting import CutPlan

BASES = ["full", "minimal"]


def gate_cut(gate, parameters=()):
    """The cut that a two-qubit gate gives, and the plan it is in."""
    circuit = QuantumCircuit(2)
    circuit.ry(0.3, [0, 1])
    circuit.append(gate, [0, 1])
    circuit.ry(0.4, [0, 1])
    plan = CutPlan.build(circuit, "AB")
    assert plan.num_cuts == 1
    return plan.cuts[0], plan


def wire_cut(mark=None):
    circuit = QuantumCircuit(3)
    circuit.cx(0, 1)
    circuit.append(*((CutWire(), [1]) if mark is None else (mark, [1, 2])))
    circuit.cx(1 if mark is None else 2, 0 if mark else 2)
    return CutPlan.build(circuit, "AAB" if mark else "AAA").cuts[0]


def random_gate(name, state=None, seed=4):
    angles = np.random.default_rng(seed).uniform(-3, 3, catalogue.ANGLES[name])
    return catalogue.make(name, angles, state)


def transfer(kraus, weights):
    """The Pauli transfer matrix of Σ w K ρ K†."""
    return sum(w * PTM(Kraus(k)).data.real for w, k in zip(weights, kraus, strict=True))


def coordinate_channels(side, kind):
    """The channel of each coordinate, written in what its settings measure."""
    basis = side.basis(kind)
    channels = []
    for operation in basis.operations:
        signs = [[1, -1], [1, 1]] if operation.measures else [[1]]
        channels.extend(transfer(operation.kraus, weights) for weights in signs)
    assert len(channels) == basis.inverse.shape[1]
    return np.einsum("rf,fij->rij", basis.inverse, channels)


@pytest.mark.parametrize("kind", BASES)
@pytest.mark.parametrize(("name", "state"), catalogue.VARIANTS)
def test_every_gate_is_put_back_from_its_settings(name, state, kind):
    """Σ core[r, s] X_r ⊗ Y_s is the transfer matrix of the gate."""
    gate = random_gate(name, state)
    cut, plan = gate_cut(gate)
    angles = plan.normal.angles.evaluate(np.zeros((1, 0)))
    first, second = (coordinate_channels(side, kind) for side in cut.sides)
    joined = np.einsum("rs,rij,skl->kilj", cut.cores(angles)[0], first, second)
    expected = PTM(Operator(gate)).data.real
    assert np.abs(joined.reshape(16, 16) - expected).max() <= 1e-12


@pytest.mark.parametrize("name", [n for n in catalogue.TWO_QUBIT if catalogue.ANGLES[n]])
def test_slopes_of_cores_equal_central_differences(name):
    """A step of 1e-5 errs by about 1e-10."""
    count = catalogue.ANGLES[name]
    cut, plan = gate_cut(catalogue.make(name, ParameterVector("p", count)))
    rows = np.random.default_rng(1).uniform(-7, 7, (5, count))
    angles = plan.normal.angles.evaluate(rows)
    for index, column in enumerate(cut.angles):
        step = 1e-5 * np.eye(angles.shape[1])[column]
        difference = (cut.cores(angles + step) - cut.cores(angles - step)) / 2e-5
        assert np.abs(cut.core_slopes(angles, index) - difference).max() <= 1e-8


@pytest.mark.parametrize("kind", BASES)
@pytest.mark.parametrize("mark", [None, Move()])
def test_a_wire_is_put_back_from_its_settings(mark, kind):
    """What is measured before the cut and prepared after it make up the identity."""
    cut = wire_cut(mark)
    assert cut.kind == "wire"
    before, after = (coordinate_channels(side, kind) for side in cut.sides)
    measured = before[:, 0, :]  # the qubit is discarded: its trace is left
    prepared = after @ np.array([1, 0, 0, 1])  # it starts from |0⟩
    joined = np.einsum("rs,ri,sj->ji", cut.cores(np.zeros((1, 0)))[0], measured, prepared)
    assert np.abs(joined - np.eye(4)).max() <= 1e-12


@pytest.mark.parametrize(
    ("gate", "distinct", "rank", "minimal"),
    [
        ("CXGate", 5, 4, 3),
        ("CZGate", 5, 4, 3),
        ("RZZGate", 5, 4, 3),
        ("CRYGate", 5, 4, 3),
        ("ECRGate", 5, 4, 3),
        ("SwapGate", 22, 16, None),
        ("iSwapGate", 22, 16, None),
    ],
)
def test_the_numbers_of_the_decomposition(gate, distinct, rank, minimal):
    """Distinct operations, rank and fewest settings a side, as DESIGN §4 has them."""
    for symbols in (False, True):
        count = catalogue.ANGLES[gate]
        made = catalogue.make(gate, ParameterVector("p", count)) if symbols else random_gate(gate)
        cut, _ = gate_cut(made)
        for side in cut.sides:
            assert len(side.basis("full").operations) == len(side.distinct) == distinct
            assert side.rank == rank
            fewest = len(side.basis("minimal").operations)
            assert fewest == minimal or (minimal is None and fewest < distinct)
        assert cut.rank == (rank, rank)


@pytest.mark.parametrize(("name", "state"), catalogue.VARIANTS)
def test_settings_are_physical_and_span(name, state):
    """Complete Kraus operators; coordinates read off functionals are the coordinates."""
    cut, _ = gate_cut(random_gate(name, state))
    for side in (*cut.sides, *wire_cut().sides):
        for kind in BASES:
            basis = side.basis(kind)
            assert np.abs(basis.inverse @ basis.functionals - np.eye(side.rank)).max() <= 1e-9
            for operation in basis.operations:
                total = sum(k.conj().T @ k for k in operation.kraus)
                assert np.abs(total - np.eye(2)).max() <= 1e-12
        assert len(side.basis("minimal").operations) <= len(side.basis("full").operations)


@pytest.mark.parametrize(
    ("name", "angles", "overhead"),
    [
        ("CXGate", (), 9),
        ("CZGate", (), 9),
        ("CSGate", (), (1 + 2 * np.sin(np.pi / 4)) ** 2),
        ("RZZGate", (0.3,), (1 + 2 * np.sin(0.3)) ** 2),
        ("RZZGate", (0.0,), 1),
        ("SwapGate", (), 49),
        ("iSwapGate", (), 49),
    ],
)
def test_known_overheads(name, angles, overhead):
    cut, plan = gate_cut(catalogue.make(name, angles))
    assert cut.sampling_overhead == pytest.approx(overhead)
    assert plan.sampling_overhead == pytest.approx(overhead)


def test_the_overhead_of_wires_and_of_symbolic_gates():
    """A symbolic gate is counted where it entangles most; cuts multiply."""
    assert wire_cut().sampling_overhead == pytest.approx(16)
    assert gate_cut(RZZGate(Parameter("a")))[0].sampling_overhead == pytest.approx(9)
    circuit = QuantumCircuit(3)
    circuit.h(range(3))
    circuit.cx(0, 1)
    circuit.swap(1, 2)
    circuit.h(range(3))
    assert CutPlan.build(circuit, "ABC").sampling_overhead == pytest.approx(9 * 49)


@pytest.mark.parametrize("seed", range(5))
def test_controlled_gates_in_any_frame_need_five_operations(seed):
    """Local unitaries around a CX change its frame, not its rank."""
    local = [
        np.kron(random_unitary(2, seed=2 * seed + k), random_unitary(2, seed=99 + seed + k))
        for k in (0, 1)
    ]
    cut, _ = gate_cut(UnitaryGate(reduce(np.matmul, [local[0], CXGate().to_matrix(), local[1]])))
    for side in cut.sides:
        assert (side.rank, len(side.distinct)) == (4, 5)


@pytest.mark.parametrize("name", ["rzz", "rxx", "crx", "cp"])
@pytest.mark.parametrize("exponent", range(1, 14))
def test_weakly_entangling_gates_are_exact(name, exponent):
    """Down to angles at which a gate is the identity to rounding."""
    circuit = QuantumCircuit(2)
    circuit.u(0.4, 0.7, 0.2, [0, 1])
    getattr(circuit, name)(3 * 10.0**-exponent, 0, 1)
    circuit.u(1.1, 0.3, 0.9, [0, 1])
    for observable in ("XY", "ZI", "YZ"):
        assert value(circuit, observable, "AB") == pytest.approx(
            reference(circuit, observable), abs=1e-10
        )


def test_settings_per_fragment():
    circuit = QuantumCircuit(4)
    circuit.h(range(4))
    for qubit in range(3):
        circuit.cx(qubit, qubit + 1)
    plan = CutPlan.build(circuit, "ABCD")
    assert plan.settings_per_fragment() == (5, 25, 25, 5)
    assert plan.settings_per_fragment("minimal") == (3, 9, 9, 3)
    assert plan.num_terms == 6**3


@pytest.mark.parametrize(("name", "state"), catalogue.VARIANTS)
def test_the_overhead_is_no_more_than_the_addons(name, state):
    gate = random_gate(name, state)
    cut, _ = gate_cut(gate)
    theirs = QPDBasis.from_instruction(gate).overhead
    assert cut.sampling_overhead <= theirs * (1 + 1e-9)
    assert cut.sampling_overhead >= 1 - 1e-9
