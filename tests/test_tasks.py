"""A fragment's subexperiments divided by circuits and by shots, and put together again."""

from __future__ import annotations

import hashlib
import itertools
import pickle
import re
from dataclasses import replace

import numpy as np
import pytest
from helpers import entangled
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.primitives import (
    BaseSamplerV2,
    BitArray,
    DataBin,
    PrimitiveJob,
    PrimitiveResult,
    SamplerPubResult,
    StatevectorSampler,
)
from qiskit.primitives.containers.sampler_pub import SamplerPub
from qiskit_aer.primitives import SamplerV2 as AerSampler

from distributed_estimator import DistributedEstimator, EstimatorOptions
from distributed_estimator.backends import StatevectorBackend
from distributed_estimator.backends.sampler import SamplerBackend
from distributed_estimator.cutting import CutPlan, Fragment
from distributed_estimator.errors import InputError
from distributed_estimator.reconstruction import FragmentTensor
from distributed_estimator.subexperiments import (
    FragmentEstimate,
    FragmentExperiment,
    FragmentWork,
    Observables,
    make_tasks,
    parse,
    restrict,
)

MOST = 5.0
"""Standard errors a value may be off by: a normal does so once in two million values, and fewer
than ten thousand are drawn here, with fixed seeds."""


def experiments_of(circuit, labels, observables, basis="full"):
    """What to run of each fragment."""
    array = parse(observables, circuit.num_qubits).sparse_observables_array().ravel()
    terms = Observables.gather(array)
    plan = CutPlan.build(circuit, labels).for_observables(terms.support)
    return [
        FragmentExperiment(f, tuple(restrict(terms.terms, f)[0]), basis) for f in plan.fragments
    ]


def observed(basis="full"):
    """A fragment of two qubits between two cuts, two parameters on it, in several bases."""
    x = ParameterVector("x", 2)
    circuit = entangled(4, 3, layers=1)
    circuit.ry(x[0], 1)
    circuit.cx(1, 2)
    circuit.rx(x[1], 2)
    circuit = circuit.compose(entangled(2, 4, layers=1, gate="cz"), [1, 2])
    experiment = experiments_of(circuit, "ABBC", ["ZZZZ", "IXIX", "IZII", "ZXYI", "IYYI"], basis)[1]
    assert len(experiment.fragment.slots) == 2
    assert len(experiment.groups) == 3
    return experiment


def silent(basis="full"):
    """A fragment with three slots that is not observed: some of its settings need not run."""
    experiment = experiments_of(entangled(3, 5), "ABC", ["IIZ"], basis)[1]
    assert len(experiment.fragment.slots) == 3
    assert not experiment.measures
    return experiment


EXPERIMENTS = {"observed": observed(), "silent": silent("minimal")}


@pytest.fixture(params=EXPERIMENTS)
def experiment(request):
    return EXPERIMENTS[request.param]


def angles_of(experiment, rows=1):
    return np.random.default_rng(8).uniform(-2, 2, (rows, len(experiment.fragment.angles)))


def tasks_of(experiment, angles, shots, run="run", *, most=None, chunks=1, covariances=True):
    return list(
        make_tasks(
            0,
            experiment,
            angles,
            shots,
            run,
            rows_per_task=100,
            circuits_per_task=most,
            chunks=chunks,
            covariances=covariances,
        )
    )


def tensor_of(experiment, angles, tasks, results):
    """The tensor after (task, estimate) pairs were added in the order given."""
    tensor = FragmentTensor(experiment, len(angles), tasks)
    for task, estimate in results:
        assert not tensor.complete
        tensor.add(task, estimate)
    return tensor


def results_of(backend, experiment, tasks):
    return [(task, backend.run(experiment, task)) for task in tasks]


def bits_of(tensor):
    return [array.tobytes() for array in (tensor.values, *tensor.covariances)]


def variances_of(tensor):
    """Variances of all values, in their shape; covariances have a pair of coordinates per slot."""
    rows, paulis, size = tensor.values.shape
    row, pauli = (places.ravel() for places in np.indices((rows, paulis)))
    variances = tensor.covariance(row, pauli, pauli)[:, None]
    for rank in tensor.experiment.fragment.shape:
        variances = variances.reshape(len(row), variances.shape[1], rank, rank, -1)
        variances = variances.diagonal(axis1=2, axis2=3).swapaxes(2, 3)
        variances = variances.reshape(len(row), -1, variances.shape[3])
    return variances.reshape(rows, paulis, size)


# --- Tasks ----------------------------------------------------------------------------------------

PLAIN = FragmentExperiment(Fragment(0, (0,), {0: 0}, (), ()), (((0, "Z"),),), "full")
BINDINGS = np.array([[0.5, -1.0], [0.25, 2.0], [1.5, 0.0]])


@pytest.mark.parametrize("shots", [100, None])
@pytest.mark.parametrize("bindings", [BINDINGS, BINDINGS + 1e-16, BINDINGS[::-1]])
def test_undivided_tasks_keep_their_keys_and_seeds(shots, bindings):
    """What is recorded of a run with a seed can be drawn again by later versions, anywhere."""
    tasks = list(
        make_tasks(
            4,
            PLAIN,
            bindings,
            shots,
            "run 7",
            rows_per_task=2,
            circuits_per_task=None,
            chunks=1,
            covariances=True,
        )
    )
    assert [task.key for task in tasks] == [
        "bf1b99f3ef19995e58a897355e741f71",
        "aa3a9c7345db38bc005b37c1403b467a",
    ]
    assert [task.seed for task in tasks] == [
        230524099337850599443499032909480531954,
        47727965521235669221381965147374817491,
    ]
    assert all(task.undivided for task in tasks)


@given(
    rows=st.integers(1, 4),
    shots=st.integers(1, 50),
    most=st.none() | st.integers(1, 300),
    chunks=st.integers(1, 8),
)
@settings(max_examples=60)
def test_every_circuit_gets_all_shots_at_every_row(rows, shots, most, chunks):
    experiment = EXPERIMENTS["silent"]
    tasks = tasks_of(experiment, np.zeros((rows, 0)), shots, most=most, chunks=chunks)
    total = np.zeros((rows, experiment.num_circuits), dtype=int)
    for task in tasks:
        first, count = task.circuits or (0, experiment.num_circuits)
        total[task.start : task.start + len(task.angles), first : first + count] += task.shots
        assert most is None or task.num_subexperiments(experiment) <= most
        assert task.shots >= min(2, shots)
    assert (total == shots).all()
    assert sum(task.num_subexperiments(experiment) * task.shots for task in tasks) == total.sum()
    assert len({task.key for task in tasks}) == len({task.seed for task in tasks}) == len(tasks)
    sizes = {task.shots for task in tasks}
    assert max(sizes) - min(sizes) <= 1


def test_exact_tasks_are_divided_by_rows_alone(experiment):
    angles = angles_of(experiment, 3)
    divided = tasks_of(experiment, angles, None, most=2, chunks=4)
    assert [task.key for task in divided] == [
        task.key for task in tasks_of(experiment, angles, None)
    ]
    assert all(task.undivided for task in divided)


@pytest.mark.parametrize("most", [1, 4])
def test_a_divided_task_takes_the_simulator_as_long_as_its_whole_rows(experiment, most):
    backend, angles = StatevectorBackend(), angles_of(experiment)
    (whole,) = tasks_of(experiment, angles, 100)
    (exact,) = tasks_of(experiment, angles, None)
    seconds = backend.expected_seconds(experiment, whole)
    parts = tasks_of(experiment, angles, 100, most=most)
    assert len(parts) > 1
    assert {backend.expected_seconds(experiment, part) for part in parts} == {seconds}
    assert 1e-5 < backend.expected_seconds(experiment, exact) < seconds < 0.1


# --- Numbers of circuits --------------------------------------------------------------------------


def circuits_in(experiment, circuits=None):
    """(measured slots, group, setting) of each circuit, in order."""
    return [
        (part.family.measured, group, setting)
        for part in experiment.family_parts(circuits)
        for group, chosen in part.by_group()
        for setting in range(part.family.num_settings)[chosen]
    ]


@pytest.mark.parametrize("most", [1, 3, 100])
def test_tasks_share_the_circuits_of_each_group(experiment, most):
    everything = [group for _, group, _ in circuits_in(experiment)]
    tasks = tasks_of(experiment, angles_of(experiment), 100, most=most)
    for task in tasks:
        own = [group for _, group, _ in circuits_in(experiment, task.circuits)]
        shares = [own.count(g) / everything.count(g) for g in range(len(experiment.groups))]
        assert np.allclose(experiment.group_shares(task.circuits), shares)
    assert np.allclose(sum(experiment.group_shares(task.circuits) for task in tasks), 1.0)


# --- Parts add up ---------------------------------------------------------------------------------


class Rigged(BaseSamplerV2):
    """Its shots are a function of the circuit and its parameters: what one job would draw of some
    circuits, any other draws, too."""

    def __init__(self):
        self.sent = []

    def run(self, pubs, *, shots=None):
        pubs = [SamplerPub.coerce(pub, shots) for pub in pubs]
        self.sent.append([pub.size for pub in pubs])
        job = PrimitiveJob(self._run, pubs)
        job._submit()
        return job

    def _run(self, pubs):
        return PrimitiveResult([SamplerPubResult(self._data(pub)) for pub in pubs])

    def _data(self, pub):
        parameters = pub.circuit.parameters
        values = pub.parameter_values.as_array(parameters).reshape(pub.size, len(parameters))
        content = f"{sorted(pub.circuit.count_ops().items())}".encode()
        bits = {
            register.name: BitArray.from_bool_array(
                np.array([self._bits(content, row, register, pub.shots) for row in values]).reshape(
                    *pub.shape, pub.shots, register.size
                )
            )
            for register in pub.circuit.cregs
        }
        return DataBin(**bits, shape=pub.shape)

    def _bits(self, content, row, register, shots):
        digest = hashlib.sha256(content + row.tobytes() + register.name.encode()).digest()
        return np.random.default_rng(list(digest)).random((shots, register.size)) < 0.4


def assert_adds_up(parts, whole):
    """Sums over parts, to rounding: 1e-12 of the largest entry."""
    for column in zip(*([e.values, *e.covariances] for e in (*parts, whole)), strict=True):
        total = np.sum(column[:-1], axis=0)
        scale = np.abs(column[-1]).max()
        assert scale > 0
        np.testing.assert_allclose(total, column[-1], rtol=0, atol=1e-12 * scale)


@pytest.mark.parametrize("most", [1, 4, 11])
def test_parts_of_one_table_add_up(experiment, most):
    """Tasks with one seed draw one table, of which each keeps its own circuits."""
    angles = angles_of(experiment)
    backend = StatevectorBackend()
    (whole,) = tasks_of(experiment, angles, 30)
    tasks = tasks_of(experiment, angles, 30, most=most)
    parts = [backend.run(experiment, replace(task, seed=whole.seed)) for task in tasks]
    assert len(parts) == -(-experiment.num_circuits // most)
    assert_adds_up(parts, backend.run(experiment, whole))


@pytest.mark.parametrize("most", [1, 4, 11])
def test_parts_of_the_same_counts_add_up(experiment, most):
    angles = angles_of(experiment)
    sampler = Rigged()
    backend = SamplerBackend(sampler, defer_measurements=True)
    tasks = tasks_of(experiment, angles, 30, most=most)
    parts = [backend.run(experiment, task) for task in tasks]
    jobs, sampler.sent = sampler.sent, []
    assert_adds_up(parts, backend.run(experiment, tasks_of(experiment, angles, 30)[0]))
    # Each job sends its own circuits and no others, those of a family as one PUB.
    assert [sum(job) for job in jobs] == [task.circuits[1] for task in tasks]
    for job, task in zip(jobs, tasks, strict=True):
        own = [family for family, *_ in circuits_in(experiment, task.circuits)]
        assert job == [len(list(same)) for _, same in itertools.groupby(own)]
    (families,) = sampler.sent
    assert sum(families) == experiment.num_circuits


# --- Samplers with small jobs ---------------------------------------------------------------------

SAMPLERS = {"aer": AerSampler, "statevector": StatevectorSampler}


@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_small_jobs_give_unbiased_tensors(sampler, size, experiment):
    angles = angles_of(experiment)
    backend = SamplerBackend(SAMPLERS[sampler](), circuits_per_job=size)
    assert backend.circuits_per_task(experiment) == size
    assert backend.rows_per_task(experiment) == 1
    tasks = tasks_of(experiment, angles, 400, most=size)
    sampled = tensor_of(experiment, angles, tasks, results_of(backend, experiment, tasks))
    exact = StatevectorBackend().run(experiment, tasks_of(experiment, angles, None)[0])
    errors, stderrs = sampled.values - exact.values, np.sqrt(variances_of(sampled))
    assert sampled.complete
    assert (np.abs(errors) <= MOST * stderrs + 1e-12).all(), (errors / stderrs).round(1)


@pytest.mark.parametrize("size", [0, -3, 2.0, True, None])
def test_jobs_of_no_circuits_are_refused(size):
    with pytest.raises(InputError, match=r"`circuits_per_job` is .*: give a whole number"):
        SamplerBackend(StatevectorSampler(), circuits_per_job=size)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_groups_in_one_basis_without_parameters(sampler):
    """More parities than one group tabulates: the same circuit twice, and nothing to bind."""
    circuit = QuantumCircuit(14)
    circuit.x([0, 9, 13])
    circuit.cz(range(13), range(1, 14))
    (experiment,) = experiments_of(
        circuit, None, ["I" * (13 - q) + "Z" + "I" * q for q in range(14)]
    )
    assert len(experiment.groups) == 2
    (task,) = tasks_of(experiment, np.zeros((1, 0)), 8)
    values = SamplerBackend(SAMPLERS[sampler]()).run(experiment, task).values
    assert values.ravel().tolist() == [-1.0 if q in (0, 9, 13) else 1.0 for q in range(14)]


# --- Tensors --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def arrivals():
    """Two undivided rows' worth of parts and chunks, and what became of each."""
    experiment, backend = EXPERIMENTS["observed"], StatevectorBackend()
    angles = angles_of(experiment, 2)
    tasks = tasks_of(experiment, angles, 11, most=20, chunks=3)
    assert len(tasks) == 2 * 3 * -(-experiment.num_circuits // 20)
    return experiment, angles, results_of(backend, experiment, tasks)


@given(data=st.data())
@settings(max_examples=25)
def test_the_order_of_arrival_changes_no_bit(arrivals, data):
    experiment, angles, results = arrivals
    tasks = [task for task, _ in results]
    first = tensor_of(experiment, angles, tasks, results)
    order = data.draw(st.permutations(results))
    other = tensor_of(experiment, angles, data.draw(st.permutations(tasks)), order)
    assert first.complete
    assert other.complete
    assert bits_of(other) == bits_of(first)


@given(data=st.data())
@settings(max_examples=25)
def test_the_order_of_arrival_changes_no_bit_of_what_is_settled(arrivals, data):
    """The middle chunk of every part and the last of some never arrive."""
    experiment, angles, results = arrivals
    tasks = [task for task, _ in results]
    some = [
        (task, estimate)
        for task, estimate in results
        if task.chunk[0] == 0 or (task.chunk[0] == 2 and task.circuits[0] == 20)
    ]
    tensors = [
        tensor_of(experiment, angles, tasks, order)
        for order in (some, data.draw(st.permutations(some)))
    ]
    for tensor in tensors:
        assert tensor.settle() == []
        assert tensor.complete
    assert bits_of(tensors[0]) == bits_of(tensors[1])


def flat(value, variance=1.0, shots=1):
    """An estimate of `PLAIN` for one row."""
    return FragmentEstimate(np.full((1, 1, 1), value), (np.full((1, 1, 1), variance),), shots)


def test_settling_uses_the_shots_there_are():
    tasks = tasks_of(PLAIN, BINDINGS[:1], 7, chunks=3)
    assert [task.shots for task in tasks] == [3, 2, 2]
    results = [(tasks[0], flat(1.0, 7.0, 3)), (tasks[2], flat(-0.5, 11.0, 2))]
    tensor = tensor_of(PLAIN, BINDINGS[:1], tasks, results)
    assert not tensor.complete
    assert tensor.settle() == []
    assert tensor.complete
    assert tensor.values.ravel() == pytest.approx([0.6 * 1.0 + 0.4 * -0.5], rel=1e-15)
    assert tensor.covariances[0].ravel() == pytest.approx([0.36 * 7 + 0.16 * 11], rel=1e-15)
    with pytest.raises(ValueError, match="not awaited"):
        tensor.add(tasks[1], flat(0.0))


def test_settling_says_what_has_no_shots_at_all(arrivals):
    experiment, angles, results = arrivals
    tasks = [task for task, _ in results]
    lost = [task for task in tasks if task.start == 1 and task.circuits[0] == 20]
    some = [(task, e) for task, e in results if task not in lost and task.chunk[0] != 1]
    tensor = tensor_of(experiment, angles, tasks, some)
    assert tensor.settle() == lost
    assert not tensor.complete
    # One chunk of what is missing, and it can be done without the others.
    tensor.add(lost[1], dict(results)[lost[1]])
    assert tensor.settle() == []
    assert tensor.complete
    assert (variances_of(tensor) >= 0).all()


@pytest.mark.parametrize("chunks", [1, 2])
def test_a_task_is_added_once(chunks):
    tasks = tasks_of(PLAIN, BINDINGS[:1], 6, chunks=chunks)
    tensor = FragmentTensor(PLAIN, 1, tasks)
    tensor.add(tasks[0], flat(1.0))
    with pytest.raises(ValueError, match=rf"task {tasks[0].key} is not awaited"):
        tensor.add(tasks[0], flat(1.0))
    (stranger,) = tasks_of(PLAIN, BINDINGS[1:2], 6)
    with pytest.raises(ValueError, match="not awaited"):
        tensor.add(stranger, flat(1.0))


REPETITIONS = 400
SPREAD = MOST * np.sqrt(2 / REPETITIONS)
"""How far the mean square of as many standard normals may be from 1: five of its standard
deviations, 0.35. Chunks weighted linearly in covariances would put it at 0.5 or below."""


@pytest.mark.parametrize("dropped", [None, 1])
def test_divided_tensors_scatter_as_their_variances_say(dropped):
    """Rows with the same angles are repetitions; without one chunk of each part, too."""
    experiment, backend = EXPERIMENTS["observed"], StatevectorBackend()
    angles = np.tile(angles_of(experiment), (REPETITIONS, 1))
    tasks = tasks_of(experiment, angles, 300, most=40, chunks=2)
    some = [task for task in tasks if task.chunk[0] != dropped]
    tensor = FragmentTensor(experiment, len(angles), tasks)
    for task in some:
        tensor.add(task, backend.run(experiment, task))
    assert tensor.settle() == []
    exact = backend.run(experiment, tasks_of(experiment, angles[:1], None)[0]).values
    errors, variances = tensor.values - exact, variances_of(tensor).mean(axis=0)
    assert (variances > 0).all()
    assert (np.abs(errors.mean(axis=0)) <= MOST * np.sqrt(variances / REPETITIONS)).all()
    ratio = (errors**2).mean(axis=0) / variances
    assert np.abs(ratio - 1).max() <= SPREAD, ratio


# --- What travels ---------------------------------------------------------------------------------


def test_works_travel_and_keep_their_key(experiment):
    work, other = (FragmentWork(StatevectorBackend(), (experiment,)) for _ in range(2))
    assert work.key != other.key
    copy = pickle.loads(pickle.dumps(work))
    assert copy.key == work.key
    for task in tasks_of(experiment, angles_of(experiment), 20, most=9, chunks=2):
        own, its = work.run(task), copy.run(pickle.loads(pickle.dumps(task)))
        assert [a.tobytes() for a in own] == [a.tobytes() for a in its]
        estimate = work.estimate_of(own)
        assert estimate.values is own[0]
        assert estimate.shots == own[1][0] == task.shots
        assert estimate.covariances == own[2:]


def test_what_an_experiment_derives_stays_at_home():
    """The layout of the settings and all that follows from it: many times the fragment itself."""
    fresh, used = observed(), observed()
    StatevectorBackend().run(used, tasks_of(used, angles_of(used), 20)[0])
    # The bases of slots are kept with their sides, and travel.
    assert len(pickle.dumps(used)) < 2 * len(pickle.dumps(fresh)) < 100_000
    assert len(pickle.dumps(used.layout)) > 10 * len(pickle.dumps(used))
    assert pickle.loads(pickle.dumps(used)).key == fresh.key


# --- Damaged results ------------------------------------------------------------------------------


@pytest.mark.parametrize("shots", [None, 1, 2, 30])
@pytest.mark.parametrize("covariances", [True, False])
def test_sound_results_pass(experiment, shots, covariances):
    work = FragmentWork(StatevectorBackend(), (experiment,))
    angles = angles_of(experiment, 2)
    for task in tasks_of(experiment, angles, shots, most=60, covariances=covariances):
        assert work.check(task, work.run(task)) is None


def with_entry(array, value):
    damaged = array.copy()
    damaged.flat[-1] = value
    return damaged


DAMAGES = {
    "nothing": (lambda values, *rest: (), "0 arrays came back instead of"),
    "no covariances": (lambda values, *rest: (values,), "1 arrays came back instead of"),
    "too many": (lambda *arrays: (*arrays, arrays[0]), "arrays came back instead of"),
    "rows": (
        lambda values, *rest: (values[:1], *rest),
        r"values have shape \(1, .* instead of \(2",
    ),
    "swapped": (
        lambda values, shots, first, *rest: (values, shots, first[:, :-1], *rest),
        "the covariances of measurement group 0 have shape",
    ),
    "halved": (lambda values, *rest: (values.astype("f4"), *rest), "values are float32"),
    "list": (lambda values, *rest: (values.tolist(), *rest), "the values are list instead"),
    "nan": (lambda values, *rest: (with_entry(values, np.nan), *rest), "values are not all finite"),
    "infinite": (
        lambda values, shots, first, *rest: (values, shots, with_entry(first, -np.inf), *rest),
        "the covariances of measurement group 0 are not all finite",
    ),
    "no shots": (
        lambda values, shots, *rest: (values, 0 * shots, *rest),
        "the shots are 0 instead of a whole number",
    ),
    "half a shot": (
        lambda values, shots, *rest: (values, shots + 0.5, *rest),
        r"the shots are 30\.5 instead of a whole number",
    ),
    "unknown": (
        lambda values, shots, first, *rest: (values, shots, with_entry(first, np.nan), *rest),
        "the covariances of measurement group 0 are not all finite",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_results_are_refused(damage):
    change, cause = DAMAGES[damage]
    experiment = EXPERIMENTS["observed"]
    work = FragmentWork(StatevectorBackend(), (experiment,))
    (task,) = tasks_of(experiment, angles_of(experiment, 2), 30)
    found = work.check(task, change(*work.run(task)))
    assert found is not None
    assert re.search(cause, found), found


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_small_jobs_give_unbiased_values(sampler):
    circuit, observables = entangled(3, 1), ["ZZZ", "XYX", "IIZ"]
    exact = DistributedEstimator("ABB").run([(circuit, observables)], precision=0)
    backend = SamplerBackend(SAMPLERS[sampler](), circuits_per_job=3)
    options = EstimatorOptions(shots=400, seed=2)
    estimator = DistributedEstimator("ABB", backend=backend, options=options)
    result = estimator.run([(circuit, observables)]).result()[0]
    z = (result.data.evs - exact.result()[0].data.evs) / result.data.stds
    assert np.abs(z).max() <= MOST, z
    whole = DistributedEstimator("ABB", backend=SAMPLERS[sampler](), options=options)
    undivided = whole.run([(circuit, observables)]).result()[0]
    for name in ("num_subexperiments", "shots_total", "num_circuits"):
        assert result.metadata[name] == undivided.metadata[name]
