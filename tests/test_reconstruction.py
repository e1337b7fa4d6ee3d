"""Contractions as tensors arrive, and in slices: the same bits, the same values, less memory."""

from __future__ import annotations

import copy
import functools
import os
import pickle
import subprocess
import sys
import tracemalloc
import weakref
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path as FilePath
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.quantum_info import SparseObservable, SparsePauliOp

from distributed_estimator import DistributedEstimator, EstimatorOptions, FragmentGradient
from distributed_estimator.backends import StatevectorBackend
from distributed_estimator.cutting import CutPlan
from distributed_estimator.errors import PlanTooLargeError
from distributed_estimator.execution import Assignment, TaskSpec, run_tasks
from distributed_estimator.execution.pools import ThreadPool
from distributed_estimator.pipeline.rounds import MemoryLimit
from distributed_estimator.reconstruction import (
    FragmentTensor,
    Network,
    Queries,
    Reconstruction,
    slicing,
)
from distributed_estimator.reconstruction.path import Contraction, Path
from distributed_estimator.reconstruction.slicing import run_here
from distributed_estimator.subexperiments import (
    FragmentExperiment,
    Observables,
    make_tasks,
    restrict,
    unique_rows,
)
from tests.helpers import reference


def network_of(edges, rank=4):
    """The network of a plan whose fragments are joined so by cuts of the same rank."""
    fragments = [[] for _ in range(max(map(max, edges)) + 1)]
    cuts = []
    for edge in edges:
        cuts.append(
            SimpleNamespace(ends=tuple((f, len(fragments[f])) for f in edge), rank=(rank, rank))
        )
        for fragment in edge:
            fragments[fragment].append(rank)
    return Network(
        SimpleNamespace(fragments=[SimpleNamespace(slots=f) for f in fragments], cuts=cuts)
    )


def ring(size):
    return [(n, (n + 1) % size) for n in range(size)]


def grid(side):
    across = [(side * i + j, side * i + j + 1) for i in range(side) for j in range(side - 1)]
    return across + [(place, place + side) for place in range(side * (side - 1))]


def complete(size):
    return [(a, b) for b in range(size) for a in range(b)]


def random_leaves(edges, queries, *, rank=4, seed=0):
    """Leaves for `network_of(edges, rank)`: one per fragment, and one core per cut for all."""
    rng = np.random.default_rng(seed)
    degrees = np.bincount(np.ravel(edges))
    fragments = [rng.normal(size=(queries, *[rank] * degree)) for degree in degrees]
    return fragments + [rng.normal(size=(1, rank, rank)) for _ in edges]


def leaf_elements(edges, rank=4):
    return sum(prod(leaf.shape[1:]) for leaf in random_leaves(edges, 1, rank=rank))


def capped(edges, share, rank=4):
    """A network, and numbers it may hold: its leaves, and a share of what it has besides."""
    network, leaves = network_of(edges, rank), leaf_elements(edges, rank)
    whole = network.elements_per_query(squared=False)
    return network, leaves + int(share * (whole - leaves))


def same_bits(one, other):
    return all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))


def backwards(work, tasks):
    """Run tasks in the wrong order, each on a copy that has travelled."""
    results = {t: pickle.loads(pickle.dumps(work)).run(t) for t in reversed(tasks)}
    return [results[t] for t in tasks]


def on_threads(work, tasks):
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(work.run, tasks))


@pytest.fixture
def many_tasks(monkeypatch):
    """Every few slices are a task, as they are where a slice takes long."""
    monkeypatch.setattr(slicing, "_LEAST_WORK", 1)
    monkeypatch.setattr(slicing, "_MOST_TASKS", 8)


# Contractions whose leaves come one by one


@settings(max_examples=25)
@given(st.permutations(range(21)), st.integers(1, 3))
def test_leaves_in_any_order_give_the_same_bits(order, queries):
    edges = complete(6)
    path, leaves = network_of(edges, 2).path, random_leaves(edges, queries, rank=2)
    contraction = Contraction(path, keep=True)
    forgetful = Contraction(path, keep=False)
    for leaf in order:
        contraction.feed(leaf, leaves[leaf])
        forgetful.feed(leaf, leaves[leaf])
    tensors = path.forward(leaves)
    assert same_bits([contraction.value, forgetful.value], [tensors[-1].reshape(-1)] * 2)
    assert same_bits(contraction.environments(), path.backward(tensors))


def test_steps_run_as_soon_as_they_can_and_inputs_are_freed():
    edges = ring(5)
    leaves = random_leaves(edges, 3)
    contraction = Contraction(network_of(edges).path, keep=False)
    watched = [weakref.ref(leaf) for leaf in leaves]
    for number in range(len(leaves)):
        contraction.feed(number, leaves[number])
        leaves[number] = None
    assert not any(watch() is not None for watch in watched)
    with pytest.raises(ValueError, match="keep=True"):
        contraction.environments()


# Reconstructions told of complete fragments


@functools.cache
def reconstruction_parts(several):
    """What a `Reconstruction` takes, with one term per query or with several."""
    circuit = QuantumCircuit(5)
    angles = [Parameter(f"t{n}") for n in range(4)]
    for n in range(4):
        circuit.rzz(angles[n], n, (n + 1) % 4)
    circuit.rx(angles[0], range(5))
    terms = [("ZZZZZ", 0.7), ("IXYZZ", -1.2), ("ZIIXI", 0.4)] if several else [("ZZIZZ", 1.0)]
    operator = SparsePauliOp.from_list(terms)
    observables = Observables.gather([SparseObservable(operator)])
    plan = CutPlan.build(circuit, "ABCDE")
    values = np.random.default_rng(3).uniform(-2, 2, (3, 4))
    gate_angles = plan.normal.angles.evaluate(values)
    tensors, local, places = [], [], []
    for fragment in plan.fragments:
        paulis, index = restrict(observables.terms, fragment)
        rows, inverse = unique_rows(gate_angles[:, fragment.angles])
        experiment = FragmentExperiment(fragment, tuple(paulis), "full")
        tensors.append(sampled(len(tensors), experiment, gate_angles[rows][:, fragment.angles]))
        local.append(inverse)
        places.append(index)
    queries = Queries.build(observables, np.zeros(3, dtype=np.intp), np.arange(3), local, places)
    return plan, Network(plan), tensors, queries, gate_angles


def sampled(number, experiment, angles):
    """The tensor of a fragment from 50 shots of each circuit."""
    options = {"rows_per_task": 2, "circuits_per_task": None, "chunks": 2}
    tasks = []
    if not experiment.is_trivial:
        tasks = list(make_tasks(number, experiment, angles, 50, "run", **options))
    tensor = FragmentTensor(experiment, len(angles), tasks)
    for task in tasks:
        tensor.add(task, StatevectorBackend().run(experiment, task))
    return tensor


def everything(reconstruction):
    """All results there are, as arrays."""
    values = reconstruction.values()
    environments = [array for _, leaves in reconstruction.environments() for array in leaves]
    return [
        values,
        *environments,
        reconstruction.standard_errors(values)[0],
        *(own.vectors for own in reconstruction.sensitivities()),
        reconstruction.first_order(len(values), reconstruction.sensitivities()),
    ]


def test_the_work_of_the_doubled_network_is_that_of_squared_axes():
    for edges in ([(0, 1)], [(0, 1), (1, 2), (2, 0)], [(0, 1), (0, 1), (1, 2)]):
        network = network_of(edges)
        squared = {index: size**2 for index, size in network._sizes.items()}
        doubled = Path.follow(network._indices, squared, network._pairs)
        assert network.path.doubled_products == doubled.products > network.path.products


def test_the_work_of_covariances_counts_what_they_hold():
    for tensor in reconstruction_parts(True)[2]:
        if tensor.counts:
            assert tensor.covariance_work[0] == sum(own.size for own in tensor.covariances)


WANTED = ["values", "errors", "environments"]


@settings(max_examples=40)
@given(st.booleans(), st.sampled_from(WANTED), st.permutations(range(5)), st.integers(0, 5))
def test_any_fragments_reported_in_any_order_change_no_bit(several, wanted, order, count):
    parts = reconstruction_parts(several)
    expected = everything(Reconstruction(*parts, wanted=wanted))
    reconstruction = Reconstruction(*parts, wanted=wanted)
    for number in order[:count]:
        reconstruction.fragment_complete(number)
    assert same_bits(everything(reconstruction), expected)
    assert same_bits(everything(reconstruction), expected), "a result was used up"


@pytest.mark.parametrize("wanted", WANTED)
def test_what_was_contracted_early_is_used(wanted, monkeypatch):
    parts = reconstruction_parts(False)
    reconstruction = Reconstruction(*parts, wanted=wanted)
    for number in range(len(parts[2])):
        reconstruction.fragment_complete(number)
    monkeypatch.setattr(Network, "values", None)
    assert np.isfinite(reconstruction.values()).all()
    if wanted == "errors":
        assert np.isfinite(reconstruction.standard_errors(reconstruction.values())[0]).all()
    if wanted == "environments":
        monkeypatch.setattr(Network, "environments", None)
        assert len(list(reconstruction.environments())) == 1


@pytest.mark.parametrize("wanted", WANTED)
def test_what_does_not_fit_at_once_is_left_until_the_end(wanted, monkeypatch):
    monkeypatch.setattr("distributed_estimator.reconstruction.reconstruction._CHUNK_BYTES", 8)
    parts = reconstruction_parts(True)
    reconstruction = Reconstruction(*parts, wanted=wanted)
    for number in range(len(parts[2])):
        reconstruction.fragment_complete(number)
    assert len(list(reconstruction.environments())) == parts[3].query.size
    expected = everything(Reconstruction(*parts, wanted=wanted))
    assert same_bits(everything(reconstruction), expected)


@pytest.mark.parametrize("several", [False, True])
def test_values_change_as_their_sensitivities_say(several):
    """A value is linear in the tensor of each fragment: no step is too large."""
    plan, network, tensors, queries, angles = reconstruction_parts(several)
    reconstruction = Reconstruction(plan, network, tensors, queries, angles)
    rng, values = np.random.default_rng(1), reconstruction.values()
    for number, own in enumerate(reconstruction.sensitivities()):
        step = rng.normal(size=tensors[number].values.shape)
        moved = copy.copy(tensors[number])
        moved.values = tensors[number].values + step
        others = [*tensors[:number], moved, *tensors[number + 1 :]]
        found = Reconstruction(plan, network, others, queries, angles).values()
        expected = values.copy()
        np.add.at(expected, own.results, (own.vectors[0] * step[own.rows]).sum(axis=(1, 2)))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(found).max())


def test_leaves_can_take_the_place_of_others():
    """By turns, each leaf's own array changes nothing but rounding, and twice it doubles."""
    plan, network, tensors, queries, angles = reconstruction_parts(True)
    reconstruction = Reconstruction(plan, network, tensors, queries, angles)
    ((_, expected),) = reconstruction.environments()
    for leaf, tensor in enumerate(tensors):
        own = tensor.select(queries.rows[leaf], queries.paulis[leaf])
        ((part, found),) = reconstruction.environments(leaf, 2 * own)
        assert part == slice(0, queries.query.size)
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            factor = 1 if number == leaf else 2
            tolerance = 1e-12 * np.abs(other).max()
            np.testing.assert_allclose(one, factor * other, rtol=0, atol=tolerance)


# Slices


LOOPY = {
    "ring": (ring(5), 0.3, None),
    "grid of 9": (grid(3), 0.3, 0.8),
    "grid of 16": (grid(4), 0.2, 0.5),
    "complete of 5": (complete(5), 0.2, 0.5),
    "complete of 6": (complete(6), 0.05, 0.2),
}
"""Networks, with shares of their memory at which values and derivatives need slices. Derivatives by
a ring's leaves take hardly less in slices."""


@pytest.mark.parametrize("name", LOOPY)
def test_slices_sum_to_the_value(name, many_tasks):
    edges, share, _ = LOOPY[name]
    network, most = capped(edges, share)
    sliced = network.sliced(most, squared=False)
    assert sliced.num_slices > 1
    assert sliced.elements_per_query <= most
    leaves = random_leaves(edges, 3)
    np.testing.assert_allclose(sliced.values(leaves), network.values(leaves, 3), rtol=1e-12)


@pytest.mark.parametrize("name", [name for name in LOOPY if name != "ring"])
def test_slices_sum_to_the_derivatives(name, many_tasks):
    edges, _, share = LOOPY[name]
    network = network_of(edges)
    most = int(share * (leaf_elements(edges) + network.path.elements_back))
    sliced = network.sliced(most, squared=False, derivatives=True)
    assert sliced.num_slices > 1
    assert sliced.elements_per_query <= most
    leaves = random_leaves(edges, 2)
    for own, whole in zip(sliced.environments(leaves), network.environments(leaves), strict=True):
        assert own.shape == whole.shape
        np.testing.assert_allclose(own, whole, rtol=0, atol=1e-12 * np.abs(whole).max())


def test_the_doubled_network_is_sliced_too():
    edges = grid(3)
    network = network_of(edges, 2)
    most = network.elements_per_query(squared=True) // 2
    sliced = network.sliced(most, squared=True)
    assert sliced.num_slices > 1
    assert sliced.elements_per_query <= most
    leaves = random_leaves(edges, 2)  # of rank 4, as pairs of 2 are
    np.testing.assert_allclose(sliced.values(leaves), network.values(leaves, 2), rtol=1e-12)


def test_what_fits_is_not_sliced():
    network = network_of(grid(3))
    assert network.sliced(None, squared=False) is None
    for squared in (False, True):
        whole = network.elements_per_query(squared=squared)
        assert network.sliced(whole, squared=squared) is None
        assert network.sliced(whole - 1, squared=squared).elements_per_query < whole


def on_a_pool(work, tasks):
    """Run tasks as the pipeline does."""
    results = {}
    specs = [TaskSpec(f"{work.key} {task}", work.seconds) for task in tasks]
    assignment = Assignment(work, tasks, specs, work.check, work.describe)
    pool = ThreadPool(3)
    try:
        run_tasks(pool, assignment, lambda number, arrays, _: results.update({number: arrays}))
    finally:
        pool.close()
    return [results[number] for number in range(len(tasks))]


@pytest.mark.parametrize("run", [backwards, on_threads, on_a_pool])
def test_slices_give_the_same_bits_wherever_and_whenever_they_run(run, many_tasks):
    edges = complete(5)
    network, most = capped(edges, 0.1)
    sliced, leaves = network.sliced(most, squared=False), random_leaves(edges, 2)
    leaves[0] = leaves[0].transpose(0, 2, 1, 4, 3)  # in no order that pickling keeps
    assert sliced.num_tasks > 4
    assert same_bits([sliced.values(leaves, run)], [sliced.values(leaves)])
    assert same_bits(sliced.environments(leaves, run), sliced.environments(leaves))


def test_how_many_slices_make_a_task_changes_no_bit_of_the_value(monkeypatch):
    edges = grid(3)
    network, most = capped(edges, 0.2)
    sliced, leaves = network.sliced(most, squared=False), random_leaves(edges, 2)
    tasks, values = set(), set()
    for size in (1, 2, 10**9):
        monkeypatch.setattr(slicing, "_MOST_TASKS", 10**9)
        monkeypatch.setattr(slicing, "_LEAST_WORK", size * sliced.slice_elements)
        tasks.add(sliced.num_tasks)
        values.add(sliced.values(leaves).tobytes())
    assert len(tasks) == 3
    assert len(values) == 1


TREE = """
import hashlib
from types import SimpleNamespace
from distributed_estimator.reconstruction import Network
for edges in {networks!r}:
    slots, cuts = [[] for _ in range(9)], []
    for edge in edges:
        cuts.append(SimpleNamespace(ends=[(f, len(slots[f])) for f in edge], rank=(4, 4)))
        for fragment in edge:
            slots[fragment].append(4)
    plan = SimpleNamespace(fragments=[SimpleNamespace(slots=s) for s in slots if s], cuts=cuts)
    found = Network(plan).sliced(1700, squared=False)
    assert found.num_slices > 1
    print(hashlib.sha256(repr((found.path, found.ranges, found.places)).encode()).hexdigest())
"""


def test_two_processes_find_the_same_slices():
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TREE.format(networks=[grid(3), complete(5)])],
            cwd=FilePath(__file__).parent.parent,
            env=os.environ | {"PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    outputs = [process.communicate(timeout=120)[0].split() for process in processes]
    assert len(outputs[0]) == 2
    assert outputs[0] == outputs[1]


def peak_elements(run):
    """Numbers held at most while something runs, besides what was held before."""
    run()  # what is made once is not meant
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1] // 8
    finally:
        tracemalloc.stop()


def test_memory_stays_below_the_cap():
    edges = complete(6)
    network, most = capped(edges, 0.2, rank=3)
    sliced, leaves = network.sliced(most, squared=False), random_leaves(edges, 1, rank=3)
    assert peak_elements(lambda: network.values(leaves, 1)) > 3 * most
    assert peak_elements(lambda: sliced.values(leaves)) < most
    most = network.path.elements_back // 2
    back = network.sliced(most, squared=False, derivatives=True)
    assert peak_elements(lambda: network.environments(leaves)) > 1.5 * most
    assert peak_elements(lambda: back.environments(leaves)) < most


def test_several_queries_share_the_cap():
    parts = reconstruction_parts(False)
    network = parts[1]
    most = int(2.5 * network.elements_per_query(squared=False))
    sizes = [p.stop - p.start for p, _ in Reconstruction(*parts, most_elements=most).environments()]
    assert sizes == [2, 1]


@pytest.mark.parametrize("spare", [0, 60])
def test_networks_that_no_slices_make_fit_are_refused(spare):
    network = network_of(complete(6))
    leaves = leaf_elements(complete(6))
    reason = f"starts from {leaves} numbers" if spare == 0 else "into more than 1048576 slices"
    for _ in range(2):
        with pytest.raises(PlanTooLargeError, match=reason):
            network.sliced(leaves + spare, squared=False)


def test_networks_beyond_all_memory_are_refused_at_once():
    with pytest.raises(PlanTooLargeError, match="may hold 1e\\+09"):
        network_of([(0, n) for n in range(1, 40)]).sliced(10**9, squared=False)


def test_the_results_of_slices_are_checked(many_tasks):
    edges = complete(5)
    network, most = capped(edges, 0.2)
    sliced, works = network.sliced(most, squared=False), []
    leaves = random_leaves(edges, 2)

    def noting(work, tasks):
        works.append(work)
        return run_here(work, tasks)

    sliced.values(leaves, noting)
    sliced.environments(leaves, noting)
    plain, derived = works[0], works[-1]
    assert len({work.key for work in works}) == 2
    assert plain.check(0, plain.run(0)) is None
    assert derived.check(0, derived.run(0)) is None
    assert plain.check(0, ()) == "0 arrays came back instead of 1"
    assert plain.check(0, (np.zeros(2, dtype=int),)) == "the values are int64 instead of float64"
    assert plain.check(0, (np.zeros(3),)) == "the values have shape (3,) instead of (2,)"
    assert plain.check(0, (np.array([0.0, np.nan]),)) == "the values are not all finite"
    assert derived.check(0, plain.run(0)).startswith("1 arrays came back instead of ")
    assert plain.describe(1).endswith(f"of {sliced.num_slices}")
    assert plain.seconds > 0
    assert plain.elements == 2 * sliced.slice_elements


# Sliced, through the estimator


@pytest.fixture
def little_memory(monkeypatch):
    """Contractions may hold their leaves and some of the rest; notes what they are cut into."""
    found = {}
    whole = Network.sliced

    def sliced(self, most_elements, *, squared, derivatives=False):
        leaves = sum(s**2 if squared else s for s in self.path.sizes[: self.path.num_leaves])
        rest = self.elements_per_query(squared=squared) - leaves
        most = leaves + int((0.6 if squared else 0.3) * rest)
        if derivatives:
            most = 3 * leaves + self.path.elements_back // 2
        result = whole(self, most, squared=squared, derivatives=derivatives)
        found[squared, derivatives] = result.num_slices
        return result

    monkeypatch.setattr(Network, "sliced", sliced)
    return found


def coupled(edges, qubits):
    """A circuit of generic rotations, with two-qubit gates along these edges."""
    rng = np.random.default_rng(7)
    circuit = QuantumCircuit(qubits)
    for qubit in range(qubits):
        circuit.ry(rng.uniform(-2, 2), qubit)
    for number, edge in enumerate(edges):
        circuit.rzz(Parameter(f"t{number:02}"), *edge)
    for qubit in range(qubits):
        circuit.rx(rng.uniform(-2, 2), qubit)
    return circuit, rng.uniform(-2, 2, (2, len(edges)))


CIRCUITS = {"ring": ring(5), "grid": grid(3), "complete": complete(5)}


@pytest.mark.parametrize("name", CIRCUITS)
def test_loopy_plans_in_slices_give_the_exact_values(name, little_memory):
    qubits = max(map(max, CIRCUITS[name])) + 1
    circuit, angles = coupled(CIRCUITS[name], qubits)
    operator = SparsePauliOp(["Z" * qubits, "X" + "I" * (qubits - 2) + "Y"], [1.0, 0.5])
    options = EstimatorOptions(default_precision=0)
    estimator = DistributedEstimator("ABCDEFGHI"[:qubits], workers=2, options=options)
    values = estimator.run([(circuit, operator, angles)]).result()[0].data.evs
    assert little_memory[False, False] > 1
    exact = [reference(circuit, operator, row) for row in angles]
    np.testing.assert_allclose(values, exact, rtol=0, atol=1e-10)


def test_gradients_and_standard_errors_in_slices_are_what_they_are_without(request):
    circuit, angles = coupled(complete(4), 4)
    operator = SparsePauliOp("ZZZZ")

    def results():
        estimators = [
            DistributedEstimator("ABCD", workers=2, options=options)
            for options in (EstimatorOptions(shots=50, seed=1), EstimatorOptions(shots=None))
        ]
        data = estimators[0].run([(circuit, operator, angles[0])]).result()[0].data
        gradient = FragmentGradient(estimators[1], precision=0)
        gradients = gradient.run([circuit], [operator], [angles[0]]).result().gradients
        return float(data.evs), float(data.stds), gradients[0]

    expected = results()
    noted = request.getfixturevalue("little_memory")
    value, stderr, gradient = results()
    assert len(noted) == 3
    assert min(noted.values()) > 1
    assert value == pytest.approx(expected[0], abs=1e-12)
    assert stderr == pytest.approx(expected[1], rel=1e-6)
    np.testing.assert_allclose(gradient, expected[2], rtol=0, atol=1e-12)


@pytest.mark.parametrize("pool", ["threads", "processes"])
def test_a_plan_that_does_not_fit_at_once_runs_in_slices(pool, monkeypatch):
    """Of 80 kB the 3x3 grid's fragments take 68; its contraction needs 22 and gets an eighth."""
    room = []
    check = MemoryLimit.check

    def noting(self, need):
        room.append(check(self, need))
        return room[-1]

    monkeypatch.setattr(MemoryLimit, "check", noting)
    circuit, angles = coupled(grid(3), 9)
    options = EstimatorOptions(default_precision=0, memory_limit=80_000)
    with DistributedEstimator("ABCDEFGHI", None, pool, 2, options) as estimator:
        value = estimator.run([(circuit, "Z" * 9, angles[0])]).result()[0].data.evs
    assert room == [80_000 // 8 // 8]
    np.testing.assert_allclose(value, reference(circuit, "Z" * 9, angles[0]), rtol=0, atol=1e-10)
