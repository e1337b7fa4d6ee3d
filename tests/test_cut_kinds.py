"""Cuts named one by one: with both ends on one fragment, by number and by mark, and runs of gates.

Sampled values: every repetition is a binding of its own, as in tests/test_statistics.py, and the
exact value of each is subtracted. All seeds are fixed.
"""

from __future__ import annotations

import io

import gate_catalogue as catalogue
import numpy as np
import pytest
from helpers import random_paulis, reference, run
from qiskit import QuantumCircuit, qpy
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import CXGate, PermutationGate, RZZGate
from qiskit.primitives import StatevectorSampler
from qiskit.quantum_info import SparsePauliOp
from qiskit_addon_cutting import cut_gates, cut_wires
from qiskit_addon_cutting.automated_cut_finding import (
    DeviceConstraints,
    OptimizationParameters,
    find_cuts,
)
from qiskit_addon_cutting.instructions import CutWire, Move
from qiskit_addon_cutting.qpd import TwoQubitQPDGate
from qiskit_aer.primitives import SamplerV2

from distributed_estimator import (
    CutAt,
    DistributedEstimator,
    EstimatorOptions,
    FragmentGradient,
)
from distributed_estimator.backends import StatevectorBackend
from distributed_estimator.cutting import CutPlan
from distributed_estimator.cutting.qpd import unmarked
from distributed_estimator.errors import CutError, InputError
from distributed_estimator.reconstruction import Network
from distributed_estimator.subexperiments import FragmentExperiment

TOLERANCE = 1e-10
GATES = {"cx": CXGate(), "rzz": RZZGate(0.9), "cut_wire": CutWire()}


def assert_exact(circuit, observable, cuts, values=None, **options):
    """The value of one query equals the reference; returns the metadata."""
    result = run(circuit, observable, cuts, values, **options)
    expected = reference(circuit, observable, values)
    assert abs(float(result.data.evs) - expected) <= TOLERANCE
    return result.metadata


def turn(circuit, rng):
    for qubit in range(circuit.num_qubits):
        circuit.u(*rng.uniform(-3, 3, 3), qubit)


def periodic(num_qubits, gate="rzz"):
    """A ring of gates between random rotations, and their places: the last one closes it."""
    rng, angles = np.random.default_rng(4), [0.7] if gate == "rzz" else []
    circuit = QuantumCircuit(num_qubits)
    turn(circuit, rng)
    places = range(num_qubits, 2 * num_qubits)
    for qubit in range(num_qubits):
        getattr(circuit, gate)(*angles, qubit, (qubit + 1) % num_qubits)
    turn(circuit, rng)
    return circuit, places


def two_local(num_qubits):
    """Every term of an Ising chain's energy that is closed, and more."""
    paulis = [
        ("".join(pair), [q, (q + 1) % num_qubits], 0.3 + 0.1 * q)
        for q in range(num_qubits)
        for pair in ("ZZ", "XY")
    ]
    return SparsePauliOp.from_sparse_list(paulis, num_qubits)


# --- both ends on one fragment --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cut", "fragments"), [([11], 1), ([3, 7, 11], 3), ([2, 8], 2), ([], 1), (range(12), 12)]
)
def test_a_periodic_chain_of_twelve_qubits(cut, fragments):
    """Opened at its end alone, or in pieces."""
    circuit, places = periodic(12)
    metadata = assert_exact(circuit, two_local(12), CutAt([places[q] for q in cut]))
    assert (metadata["num_cuts"], metadata["num_fragments"]) == (len(cut), fragments)


def layered(kinds, num_qubits=3, parameters=()):
    """Gates and wires between layers of a chain that stays whole, and where they are."""
    rng, places = np.random.default_rng(8), []
    symbols = iter(parameters)
    circuit = QuantumCircuit(num_qubits)
    for number, kind in enumerate(kinds):
        turn(circuit, rng)
        for qubit in range(num_qubits - 1):
            circuit.ry(next(symbols, 0.4), qubit)
            circuit.cx(qubit, qubit + 1)
        places.append(len(circuit.data))
        far = [number % 2, num_qubits - 1]
        if kind == "cut_wire":
            circuit.append(CutWire(), far[1:])
        elif kind == "move":
            circuit.append(Move(), far)
        elif kind == "rzz":
            circuit.rzz(next(symbols, 0.9), *far)
        else:
            getattr(circuit, kind)(*far)
    turn(circuit, rng)
    for qubit in range(num_qubits - 1):
        circuit.cx(qubit, qubit + 1)
    turn(circuit, rng)
    return circuit, CutAt(places)


@pytest.mark.parametrize("basis", ["full", "minimal"])
@pytest.mark.parametrize(
    "kinds", [["cx", "rzz", "cz"], ["cut_wire", "cx"], ["move", "rzz"], ["iswap"]], ids="-".join
)
def test_depth_is_cut_on_one_fragment(kinds, basis):
    circuit, cuts = layered(kinds)
    plan = CutPlan.build(circuit, cuts)
    wires = kinds.count("cut_wire") + 2 * kinds.count("move")  # a move ends two and begins two
    assert all(cut.ends[0][0] == cut.ends[1][0] == 0 for cut in plan.cuts)
    assert [fragment.num_qubits for fragment in plan.fragments] == [3 + wires]
    metadata = assert_exact(circuit, random_paulis(3, 6, 1), cuts, setting_basis=basis)
    assert metadata["num_cuts"] == len(kinds)


def test_a_network_with_cuts_on_one_fragment_is_sliced():
    circuit, cuts = layered(["cx", "cz"])
    plan = CutPlan.build(circuit, cuts)
    network, rng = Network(plan), np.random.default_rng(1)
    shapes = [plan.fragments[0].shape, *(cut.rank for cut in plan.cuts)]
    leaves = [rng.normal(size=(1, *(r * r for r in shape))) for shape in shapes]
    sliced = network.sliced(sum(leaf.size for leaf in leaves) + 100, squared=True)
    assert sliced is not None
    assert sliced.num_slices > 1
    assert np.allclose(sliced.values(leaves), network.values(leaves, 1), rtol=1e-12)


@pytest.mark.parametrize("kinds", [["rzz", "cx"], ["cut_wire", "rzz"]], ids="-".join)
def test_gradients_of_cuts_on_one_fragment_are_those_of_the_whole(kinds):
    parameters = ParameterVector("p", 4)
    circuit, cuts = layered(kinds, parameters=parameters)
    values = np.linspace(-0.8, 1.2, circuit.num_parameters)
    observable, found = random_paulis(3, 5, 2), []
    for chosen in (cuts, None):
        gradient = FragmentGradient(DistributedEstimator(chosen, workers=2), 0)
        found.append(gradient.run([circuit], [observable], [values]).result().gradients[0])
    assert np.abs(found[1]).min() > 1e-3
    assert np.abs(found[0] - found[1]).max() <= TOLERANCE


@pytest.mark.parametrize("kind", ["rzz", "cut_wire"])
def test_a_sampler_runs_cuts_on_one_fragment(kind):
    """Both slots of a cut in one circuit: of gates, and of a wire, whose start is another qubit."""
    circuit, cuts = layered([kind])
    observable = SparsePauliOp(["ZZI", "IXY"], [1, 0.5])
    options = EstimatorOptions(shots=2000, setting_basis="minimal")
    backend = StatevectorSampler(seed=3)
    estimator = DistributedEstimator(cuts, backend, workers=2, options=options)
    result = estimator.run([(circuit, observable)]).result()[0]
    assert 0 < result.data.stds < 0.1
    assert abs(result.data.evs - reference(circuit, observable)) <= 4 * result.data.stds


# --- their error bars -----------------------------------------------------------------------------


def opened(kind):
    """A ring of three qubits that one cut opens, with two parameters on every qubit."""
    parameters = ParameterVector("p", 6)
    rng = np.random.default_rng(3)
    circuit = QuantumCircuit(3)
    turn(circuit, rng)
    for qubit in range(3):
        circuit.ry(parameters[qubit], qubit)
    circuit.cx(0, 1)
    circuit.cz(1, 2)
    place = len(circuit.data)
    circuit.append(GATES[kind], [2, 0][: GATES[kind].num_qubits])
    circuit.rzz(0.4, 1, 2)
    turn(circuit, rng)
    for qubit in range(3):
        circuit.ry(parameters[3 + qubit], qubit)
    return circuit, [place]


def ring_of_two(kind):
    """The same with another qubit, cut off twice: cuts of both kinds meet in one network."""
    circuit, places = opened(kind)
    parameter = Parameter("q")
    wider = QuantumCircuit(4)
    wider.compose(circuit, range(3), inplace=True)
    for qubit in (0, 2):
        wider.u(0.4 + parameter, 1.0, -0.3, 3)
        places.append(len(wider.data))
        wider.cx(qubit, 3)
        wider.u(1.1, 0.3, 0.8, qubit)
    wider.u(0.7, -1.2, 0.3, 3)
    return wider, places


def sample(circuit, cuts, observables, repetitions, *, covariance=False, **options):
    """Errors and standard errors, shape (repetitions, observables), and the result."""
    points = np.random.default_rng(9).uniform(-0.4, 0.4, (repetitions, circuit.num_parameters))
    pub = (circuit, observables, points[:, None])
    exact = DistributedEstimator(cuts, workers=2).run([pub], precision=0).result()[0]
    options = EstimatorOptions(**{"seed": 1, **options})
    estimator = DistributedEstimator(cuts, workers=2, options=options)
    result = estimator.run([pub], covariance=covariance).result()
    return result[0].data.evs - exact.data.evs, result[0].data.stds, result


def assert_calibrated(errors, stderrs):
    """z has mean 0 and mean square 1: five deviations of n normal ones, and a skewness of S shots.

    The mean of n is known to 1/√n, that of squares to √(2/n).
    """
    assert (stderrs > 0).all()
    z, count = errors / stderrs, len(errors)
    assert np.abs(z.mean(axis=0)).max() <= 5 / np.sqrt(count)
    assert np.abs((z**2).mean(axis=0) - 1).max() <= 5 * np.sqrt(2 / count)


OBSERVABLES = [
    "ZZZ",
    SparsePauliOp(["IIZ", "ZZZ", "ZII"], [0.5, 1, -0.7]),
    SparsePauliOp(["XXX", "YYY", "ZZZ", "III"], [1, 0.5, -1, 2]),
]


@pytest.mark.parametrize("kind", list(GATES))
def test_cuts_on_one_fragment_scatter_as_their_standard_errors_say(kind):
    circuit, places = opened(kind)
    errors, stderrs, result = sample(circuit, CutAt(places), OBSERVABLES, 1000, shots=1024)
    metadata = result[0].metadata
    assert (metadata["num_cuts"], metadata["num_fragments"]) == (1, 1)
    assert_calibrated(errors, stderrs)


def test_cuts_of_both_kinds_scatter_as_their_standard_errors_say():
    circuit, places = ring_of_two("rzz")
    plan = CutPlan.build(circuit, CutAt(places))
    assert [cut.ends for cut in plan.cuts] == [
        ((0, 0), (0, 1)),
        ((0, 2), (1, 0)),
        ((0, 3), (1, 1)),
    ]
    errors, stderrs, _ = sample(
        circuit, CutAt(places), ["ZZZZ"], 120, shots=2048, setting_basis="minimal"
    )
    assert_calibrated(errors, stderrs)


@pytest.mark.parametrize("allocation", ["optimal", "neyman"])
def test_designed_shots_meet_a_precision_on_one_fragment(allocation):
    circuit, places = opened("cx")
    options = {"default_precision": 0.05, "allocation": allocation}
    errors, stderrs, _ = sample(circuit, CutAt(places), OBSERVABLES[:1], 400, **options)
    assert (stderrs <= 0.05).all()
    assert_calibrated(errors, stderrs)


@pytest.mark.soak
def test_three_cuts_on_one_fragment_scatter_as_their_standard_errors_say():
    """Six ends, whose settings are drawn where a precision rules."""
    circuit, cuts = layered(["cx", "cz", "rzz"], parameters=ParameterVector("p", 6))
    errors, stderrs, result = sample(circuit, cuts, ["ZZZ"], 12, default_precision=0.3)
    assert result[0].record.design.drawn == (0,)
    assert (stderrs <= 0.3).all()
    assert_calibrated(errors, stderrs)
    observable = random_paulis(3, 4, 1)
    fixed = run(circuit, observable, cuts, [0.1] * 6, shots=1000, seed=5, precision=None)
    exact = reference(circuit, observable, [0.1] * 6)
    assert abs(float(fixed.data.evs) - exact) <= 4 * float(fixed.data.stds)


def test_covariances_of_values_that_share_one_fragments_shots():
    """The mean of products of two errors is the mean covariance, to five deviations."""
    circuit, places = opened("rzz")
    count, pair = 300, ["ZZZ", SparsePauliOp(["IIZ", "ZZZ"], [0.5, 1])]
    errors, stderrs, result = sample(
        circuit, CutAt(places), pair, count, shots=500, covariance=True
    )
    covariance = result.metadata["covariance"].reshape(count, 2, count, 2)
    own = covariance[np.arange(count), 0, np.arange(count), 1]
    difference = errors[:, 0] * errors[:, 1] - own
    assert own.mean() > 0.5 * (stderrs[:, 0] * stderrs[:, 1]).mean()
    assert abs(difference.mean()) <= 5 * difference.std() / np.sqrt(count)


def test_sampled_gradients_on_one_fragment_have_error_bars():
    """Their squares are too large on average, if anything."""
    circuit, places = opened("rzz")
    count = 200
    points = np.random.default_rng(9).uniform(-0.4, 0.4, (count, circuit.num_parameters))
    arguments = [circuit] * count, ["ZZZ"] * count, points
    exact, sampled = (
        FragmentGradient(
            DistributedEstimator(
                CutAt(places), workers=2, options=EstimatorOptions(shots=shots, seed=2)
            ),
            precision,
        )
        .run(*arguments)
        .result()
        for shots, precision in ((None, 0), (500, None))
    )
    stderrs = np.array([own["stderrs"] for own in sampled.metadata])
    z = (np.array(sampled.gradients) - np.array(exact.gradients)) / stderrs
    assert np.abs(z.mean(axis=0)).max() <= 5 / np.sqrt(count)
    squares = (z**2).mean(axis=0)
    assert squares.max() <= 1 + 5 * np.sqrt(2 / count)
    assert squares.min() >= 0.3


# --- by number ------------------------------------------------------------------------------------


def numbered():
    """Instructions of every kind that a number may name."""
    inner = QuantumCircuit(2, name="inner")
    inner.cx(0, 1)
    inner.ry(0.3, 0)
    inner.cz(0, 1)
    circuit = QuantumCircuit(3)
    circuit.h(0)
    circuit.cx(0, 1)  # 1
    circuit.barrier()
    circuit.ccx(0, 1, 2)
    circuit.append(inner.to_gate(), [1, 2])  # 4
    circuit.cx(1, 2)  # 5
    circuit.rz(0.4, 2)
    circuit.cx(1, 2)  # 7
    circuit.append(PermutationGate([1, 0]), [0, 1])
    circuit.append(CutWire(), [2])  # 9
    circuit.ry(0.4, [0, 1, 2])
    return circuit


@pytest.mark.parametrize(
    ("cuts", "names"),
    [
        ([9, 1], ["cx", "cut_wire"]),
        ([4, 9], ["cx·cz", "cut_wire"]),
        ([5, 9], ["rzz", "cut_wire"]),
        ([np.int64(9), 7, 7], ["rzz", "cut_wire"]),
    ],
)
def test_numbers_are_those_of_the_circuits_instructions(cuts, names):
    """Of all of them; a gate of several gates is cut at each, those merged to one together."""
    circuit = numbered()
    plan = CutPlan.build(circuit, CutAt(cuts))
    assert [cut.name for cut in plan.cuts] == names
    assert_exact(circuit, random_paulis(3, 5, 3), CutAt(cuts))


@pytest.mark.parametrize(
    ("position", "match"),
    [
        (0, r"instruction 0 \(`h`\), in which there is nothing to cut: name gates on two qubits"),
        (2, r"instruction 2 \(`barrier`\), in which there is nothing to cut"),
        (3, r"instruction 3 \(`ccx`\), which acts on 3 qubits: decompose it"),
        (6, r"instruction 6 \(`rz`\), in which there is nothing"),
        (8, r"instruction 8 \(`permutation`\), in which there is nothing"),
        (40, r"instruction 40, the circuit has 13, counted from 0: give indices"),
    ],
)
def test_numbers_of_nothing_that_can_be_cut(position, match):
    with pytest.raises(CutError, match=match):
        CutPlan.build(numbered(), CutAt([9, position]))


@pytest.mark.parametrize("positions", [3, "3", None, [-1], [0.5], [True], {3: 1}, [[1]]])
def test_numbers_that_are_none(positions):
    with pytest.raises(InputError, match="`positions`"):
        CutAt(positions)


def test_cuts_out_of_sight_of_the_observable_are_not_made():
    circuit, cuts = layered(["cx", "rzz"])
    circuit.barrier()
    more = CutAt([*cuts.positions, len(circuit.data)])
    circuit.cz(0, 2)
    plan = CutPlan.build(circuit, more)
    assert (plan.num_cuts, plan.for_observables([1]).num_cuts) == (3, 2)
    assert_exact(circuit, "IZI", more)


def test_labels_leave_whole_what_separates_nothing():
    circuit, _ = layered(["cx", "cut_wire"])
    assert CutPlan.build(circuit, "AAA").num_cuts == 0


# --- by mark --------------------------------------------------------------------------------------


MARKABLE = [
    name for name, state in catalogue.VARIANTS if state is None and catalogue.ANGLES[name] < 3
]


@pytest.mark.parametrize("name", MARKABLE)
def test_a_gate_marked_by_the_addon_is_the_gate_it_was(name):
    angles = [0.7, -1.3][: catalogue.ANGLES[name]]
    gate = catalogue.make(name, angles, None)
    found = unmarked(TwoQubitQPDGate.from_instruction(gate), 0)
    assert abs(np.vdot(found.to_matrix(), gate.to_matrix())) == pytest.approx(4, abs=1e-12)
    if not angles:
        assert found.name == gate.name


def test_circuits_marked_by_the_addon_are_taken_as_they_are():
    """`cut_gates` and `find_cuts`, also where that separates nothing."""
    circuit, places = periodic(4)
    observable = random_paulis(4, 5, 1)
    for marked, fragments in [
        (cut_gates(circuit, [places[1], places[3]])[0], 2),
        (cut_gates(circuit, [places[3]])[0], 1),
        (find_cuts(circuit, OptimizationParameters(seed=1), DeviceConstraints(2))[0], 2),
    ]:
        result = run(marked, observable)
        assert abs(float(result.data.evs) - reference(circuit, observable)) <= TOLERANCE
        assert result.metadata["num_fragments"] == fragments
        again = CutPlan.build(marked.copy(), None)
        assert CutPlan.build(marked, again) is again


def test_wires_marked_by_the_addon_are_taken_as_they_are():
    """`CutWire` and `Move`, by hand and from `cut_wires`, which adds a qubit for each mark."""
    circuit = QuantumCircuit(3)
    rng = np.random.default_rng(5)
    turn(circuit, rng)
    circuit.cx(0, 1)
    circuit.append(CutWire(), [1])
    circuit.cx(1, 2)
    turn(circuit, rng)
    moved = QuantumCircuit(4)
    moved.compose(circuit.copy_empty_like(), range(3), inplace=True)
    places = {0: 0, 1: 1, 2: 3}
    for item in circuit.data:
        qubits = [places[circuit.find_bit(qubit).index] for qubit in item.qubits]
        if item.operation.name == "cut_wire":
            places[1] = 2
            moved.append(Move(), [1, 2])
        else:
            moved.append(item.operation, qubits)
    for marked, observable in [(circuit, "ZXY"), (moved, "ZXIY"), (cut_wires(circuit), "ZXIY")]:
        result = run(marked, observable)
        assert abs(float(result.data.evs) - reference(circuit, "ZXY")) <= TOLERANCE
        assert (result.metadata["num_cuts"], result.metadata["num_fragments"]) == (1, 2)


def test_marks_of_wires_survive_a_file():
    """QPY keeps a name and a definition of what it does not know."""
    circuit, _ = layered(["cut_wire", "move"])
    file = io.BytesIO()
    qpy.dump(circuit, file)
    file.seek(0)
    read = qpy.load(file)[0]
    assert [cut.name for cut in CutPlan.build(read, None).cuts] == ["cut_wire", "move"]
    result = run(read, "ZXZ")
    assert abs(float(result.data.evs) - reference(circuit, "ZXZ")) <= TOLERANCE


@pytest.mark.parametrize(("name", "width"), [("cut_wire", 1), ("move", 2), ("qpd_2q", 2)])
def test_a_users_gate_that_is_called_as_a_mark_is_none(name, width):
    inner = QuantumCircuit(width, name=name)
    inner.ry(0.3, 0)
    circuit = QuantumCircuit(2)
    circuit.append(inner.to_instruction(), range(width))
    circuit.cx(0, 1)
    assert CutPlan.build(circuit, None).num_cuts == 0
    assert float(run(circuit, "IZ").data.evs) == pytest.approx(np.cos(0.3), abs=TOLERANCE)


@pytest.mark.parametrize(
    ("cuts", "whole"), [("AAAB", 5), ("ABBA", 5), (CutAt([4, 6]), 5), ("ABCD", None)]
)
def test_marks_and_cuts_that_disagree(cuts, whole):
    """Cuts may be more than the marks, never fewer."""
    circuit, places = periodic(4)
    marked, _ = cut_gates(circuit, [places[1]])
    if whole is None:
        assert CutPlan.build(marked, cuts).num_cuts == 4
        return
    match = rf"leaves instruction {whole} whole \(`unitary` on 1 and 2\), .*: leave out `cuts`"
    with pytest.raises(CutError, match=match):
        CutPlan.build(marked, cuts)


def test_a_marked_wire_that_numbers_leave_out():
    circuit, cuts = layered(["cut_wire", "cx"])
    with pytest.raises(CutError, match=r"whole \(`cut_wire` on 2\), which the circuit marks"):
        CutPlan.build(circuit, CutAt(cuts.positions[1:]))


# --- runs of gates on one pair --------------------------------------------------------------------


def run_of(gates, seed=2):
    """Gates on qubits 1 and 2 of a chain of four, and gates of one qubit among them."""
    rng = np.random.default_rng(seed)
    circuit = QuantumCircuit(4)
    turn(circuit, rng)
    circuit.cx(0, 1)
    circuit.cx(2, 3)
    turn(circuit, rng)
    for name, *arguments in gates:
        getattr(circuit, name)(*arguments)
    turn(circuit, rng)
    circuit.cx(0, 1)
    circuit.cx(2, 3)
    turn(circuit, rng)
    return circuit


X, Y, Z = ParameterVector("x", 3)
ANGLES = (0.4, -1.3, 2.1)
RUNS = {
    "around a small rotation": ([("cx", 1, 2), ("ry", 0.2, 2), ("cx", 1, 2)], 4, 2),
    "around an angle": ([("cx", 1, 2), ("ry", X, 2), ("rz", Y, 1), ("cx", 1, 2)], 4, 9),
    "angles that add": ([("rzz", X, 1, 2), ("rzz", 2 * Y, 2, 1)], 4, 9),
    "the identity": ([("cz", 1, 2), ("cz", 2, 1)], 1, 1),
    "turned, open": ([("cx", 2, 1), ("cx", 1, 2, None, 0), ("ry", 0.3, 1), ("cz", 2, 1)], 16, 49),
    "less than its parts": ([("iswap", 1, 2), ("sx", 1), ("cp", 0.3, 2, 1), ("cx", 1, 2)], 4, 9),
}


@pytest.mark.parametrize("case", RUNS)
def test_a_run_of_gates_is_one_cut(case):
    """Of any rank, with angles inside and between: values at all bindings, and derivatives."""
    gates, rank, most = RUNS[case]
    circuit = run_of(gates)
    plan = CutPlan.build(circuit, "AABB")
    assert [cut.rank for cut in plan.cuts] == [(rank, rank)]
    assert plan.sampling_overhead <= most + 1e-9
    assert plan.cuts[0].position == 10
    values = list(ANGLES[: circuit.num_parameters])
    observable = random_paulis(4, 6, 1)
    assert_exact(circuit, observable, "AABB", values or None)
    if values:
        gradients = [
            FragmentGradient(DistributedEstimator(cuts, workers=1), 0)
            .run([circuit], [observable], [values])
            .result()
            .gradients[0]
            for cuts in ("AABB", None)
        ]
        assert np.abs(gradients[0] - gradients[1]).max() <= TOLERANCE


@pytest.mark.parametrize(
    ("between", "cuts"),
    [([("rx", 0.3, 1), ("ry", 0.2, 2)], 1), ([("cx", 0, 1)], 2), ([("cz", 2, 3)], 2)],
)
def test_a_run_ends_at_a_gate_with_another_qubit(between, cuts):
    circuit = run_of([("cx", 1, 2), *between, ("cx", 1, 2)])
    assert_exact(circuit, random_paulis(4, 5, 1), "AABB")
    assert CutPlan.build(circuit, "AABB").num_cuts == cuts


def test_a_run_ends_at_a_mark_and_is_left_where_it_is_no_gain():
    """Two weak rotations about unlike axes have rank 16 together, which costs as much as both."""
    circuit = run_of([("cx", 1, 2)])
    circuit.append(CutWire(), [1])
    circuit.cx(1, 2)
    circuit.h(range(4))
    names = [cut.name for cut in CutPlan.build(circuit, "AABB").cuts]
    assert names == ["cx", "cut_wire", "cx"]
    weak = run_of([("rzz", 0.3, 1, 2), ("rx", 0.3, 1), ("rx", 0.3, 2), ("rzz", 0.3, 1, 2)])
    assert CutPlan.build(weak, "AABB").num_cuts == 2


def test_a_run_ends_where_its_angles_are_too_many():
    circuit = run_of(
        [("cx", 1, 2), ("u", X, Y, Z, 2), ("cx", 1, 2), ("rx", X, 2), ("rzz", Y, 1, 2)]
    )
    names = [cut.name for cut in CutPlan.build(circuit, "AABB").cuts]
    assert names == ["cx·cx", "rzz"]
    assert_exact(circuit, random_paulis(4, 5, 1), "AABB", ANGLES)


def test_a_run_with_both_ends_on_one_fragment():
    circuit, places = periodic(4, "cx")
    rest = QuantumCircuit(4)
    rest.ry(0.2, 0)
    rest.cx(3, 0)
    turn(rest, np.random.default_rng(1))
    circuit.data = circuit.data[: places[3] + 1]
    circuit.compose(rest, inplace=True)
    cuts = CutAt([places[3], places[3] + 2])
    plan = CutPlan.build(circuit, cuts)
    assert [(cut.name, cut.qubits, cut.ends) for cut in plan.cuts] == [
        ("cx·cx", (3, 0), ((0, 0), (0, 1)))
    ]
    assert_exact(circuit, random_paulis(4, 5, 1), cuts)


@pytest.mark.parametrize("basis", ["full", "minimal"])
def test_a_run_that_is_a_product_of_gates_takes_no_circuits_of_what_is_not_observed(basis):
    """Two CX are nothing: the other fragment is a factor of one, whatever shots are fixed."""
    circuit = QuantumCircuit(2)
    circuit.ry(0.3, [0, 1])
    circuit.cx(0, 1)
    circuit.cx(0, 1)
    result = run(circuit, "IZ", "AB", precision=None, shots=1000, seed=1, setting_basis=basis)
    assert result.metadata["num_subexperiments"] == 1
    assert 0 < result.data.stds < 0.02
    assert abs(float(result.data.evs) - np.cos(0.3)) <= 4 * float(result.data.stds)


def test_a_run_of_very_many_gates():
    circuit = run_of([("cx", 1, 2), ("ry", 0.1, 2), ("rx", 0.2, 1)] * 100)
    assert CutPlan.build(circuit, "AABB").sampling_overhead <= 49 + 1e-9
    assert_exact(circuit, "ZXYZ", "AABB")


def test_runs_are_told_apart_by_what_is_in_them():
    """Plans and fragments are found again by their content, which a name is not."""
    keys = set()
    for angle in (0.2, 0.2, 0.3, X):
        plan = CutPlan.build(run_of([("cx", 1, 2), ("ry", angle, 2), ("cx", 1, 2)]), "AABB")
        keys.add((plan.key, *(fragment.key for fragment in plan.fragments)))
    assert len(keys) == 3


@pytest.mark.parametrize("basis", ["full", "minimal"])
@pytest.mark.parametrize("gate", ["cx", "rzz", "cut_wire"])
def test_circuits_of_settings_have_the_outcomes_that_the_simulator_draws(gate, basis):
    """Of 20,000 shots each: five standard deviations of a share are 0.018 at most."""
    circuit, value = QuantumCircuit(3), Parameter("x")
    circuit.ry(value, 0)
    circuit.cx(0, 1)
    circuit.append(GATES[gate], [1] if gate == "cut_wire" else [1, 2])
    circuit.cx(1, 2)
    circuit.rx(2 * value, 2)
    plan = CutPlan.build(circuit, CutAt([2]))
    for fragment in plan.fragments:
        word = tuple((q, "ZX"[q % 2]) for q in sorted(fragment.outputs.values()))
        pauli = "".join(dict(word).get(q, "I") for q in reversed(range(fragment.num_qubits)))
        experiment = FragmentExperiment(fragment, (word,), basis)
        angles = plan.normal.angles.evaluate(np.array([[0.4]]))[:, fragment.angles]
        (tensor,) = StatevectorBackend().tensors(experiment, angles)
        table = experiment.layout.probabilities(tensor)[0]
        settings = {
            number: (setting, places)
            for family in experiment.layout.families
            for number, setting, places in zip(
                family.numbers.tolist(), family.settings(), family.places, strict=True
            )
        }
        listed = [[own.name for own in setting] for setting in fragment.settings(basis)]
        named = [[own.name for own in setting] for setting, _ in settings.values()]
        assert sorted(listed) == sorted(named)
        for setting, places in settings.values():
            made = fragment.circuit(setting, pauli)
            bound = made.assign_parameters({p: 0.4 for p in made.parameters})
            data = SamplerV2(seed=1).run([bound], shots=20_000).result()[0].data
            parity = data.observed.array.astype(int)
            parity = np.bitwise_count(parity[:, -1]) % 2
            seen = data.slots.array[:, -1].astype(int) if "slots" in data else 0 * parity
            # Bit 0 is the first slot's, which varies slowest in the table.
            measured = sum(own.measures for own in setting)
            order = [int(f"{n:0{max(1, measured)}b}"[::-1], 2) for n in range(1 << measured)]
            for sign in (0, 1):
                shares = [np.mean((parity == sign) & (seen == n)) for n in order]
                assert np.abs(table[sign, places] - shares).max() < 0.018


def test_circuits_of_settings_are_refused_where_they_do_not_fit():
    circuit = QuantumCircuit(2)
    circuit.cx(0, 1)
    fragment = CutPlan.build(circuit, "AB").fragments[0]
    with pytest.raises(InputError, match=r"`setting` has 0 operations, the fragment 1 cut ends"):
        fragment.circuit()
    for wrong in (1, "I", ["I"]):
        with pytest.raises(InputError, match=r"`setting` is .*: give one of `fragment.settings"):
            fragment.circuit(wrong)
    (setting, *_) = fragment.settings()
    assert fragment.circuit(setting).num_clbits == 0
    for pauli in ("ZZ", "A"):
        with pytest.raises(InputError, match=f"`pauli` is '{pauli}', the fragment has 1 qubits"):
            fragment.circuit(setting, pauli)
    circuit = QuantumCircuit(2)
    circuit.cx(0, 1)
    circuit.append(CutWire(), [1])
    circuit.h(1)
    first = CutPlan.build(circuit, None).fragments[0]
    (setting, *_) = first.settings()
    with pytest.raises(InputError, match="the state of local qubit 1 goes on in another fragment"):
        first.circuit(setting, "ZI")
