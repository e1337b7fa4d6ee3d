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
    FragmentExperiment,
    FragmentResult,
    FragmentWork,
    Observables,
    Sensitivity,
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


def tasks_of(experiment, angles, shots, run="run", *, rows=100, most=None, chunks=1):
    return list(
        make_tasks(
            0,
            experiment,
            angles,
            shots,
            run,
            rows_per_task=rows,
            circuits_per_task=most,
            chunks=chunks,
        )
    )


def tensor_of(experiment, angles, tasks, results, weights=None):
    """The tensor after (task, result) pairs were added in the order given."""
    tensor = FragmentTensor(experiment, len(angles), tasks, weights)
    for task, result in results:
        assert not tensor.complete
        tensor.add(task, result)
    return tensor


def results_of(backend, experiment, tasks):
    return [(task, backend.run(experiment, task)) for task in tasks]


def bits_of(tensor):
    return [a.tobytes() for a in (tensor.values, *tensor.counts, *tensor.covariances)]


def same_counts(one, other):
    """Whether results hold the same counts, to the bit."""
    return all(a.tobytes() == b.tobytes() for a, b in zip(one.counts, other.counts, strict=True))


def shots_in(experiment, result):
    """Shots of each circuit in a result, shape (rows, measurement groups, settings)."""
    by_setting = experiment.layout.by_setting
    return np.stack([by_setting(counts[:, 0]) for counts in result.counts], axis=1)


def unequal_shots(experiment, rows, seed=3):
    """Shots of every circuit at every row: half of them none, the others few different numbers."""
    shape = rows, len(experiment.groups), experiment.layout.num_settings
    return np.random.default_rng(seed).choice([0, 0, 0, 7, 20, 100], shape)


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
    assert all((task.circuits, task.chunk) == (None, (0, 1)) for task in tasks)


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


@given(
    rows=st.integers(1, 4),
    seed=st.integers(0, 99),
    most=st.none() | st.integers(1, 300),
    chunks=st.integers(1, 8),
    name=st.sampled_from(list(EXPERIMENTS)),
)
@settings(max_examples=60)
def test_every_circuit_gets_the_shots_of_its_own(rows, seed, most, chunks, name):
    experiment = EXPERIMENTS[name]
    shots = unequal_shots(experiment, rows, seed)
    shots[0, 0, -1] = 20
    tasks = tasks_of(experiment, angles_of(experiment, rows), shots, most=most, chunks=chunks)
    total = np.zeros_like(shots)
    for task in tasks:
        own = task.shots_of(experiment)
        total[task.start : task.start + len(task.angles)] += own
        assert task.num_subexperiments(experiment) == np.count_nonzero(own) > 0
        assert (own != 1).all(), "one shot says nothing of its spread"
        assert most is None or task.num_subexperiments(experiment) <= most
    assert (total == shots * experiment.all_runs).all()
    assert len({task.key for task in tasks}) == len({task.seed for task in tasks}) == len(tasks)


@pytest.mark.parametrize("rows", [1, 3])
def test_shots_that_are_the_same_for_all_rows_need_not_be_repeated(rows):
    experiment = EXPERIMENTS["observed"]
    angles, shots = angles_of(experiment, rows), unequal_shots(experiment, 1)
    repeated = tasks_of(experiment, angles, np.tile(shots, (rows, 1, 1)), most=40, chunks=2)
    for form in (shots, shots[0]):
        tasks = tasks_of(experiment, angles, form, most=40, chunks=2)
        assert [task.key for task in tasks] == [task.key for task in repeated]
        for one, other in zip(tasks, repeated, strict=True):
            assert (one.shots_of(experiment) == other.shots_of(experiment)).all()


def test_exact_tasks_are_divided_by_rows_alone(experiment):
    angles = angles_of(experiment, 3)
    divided = tasks_of(experiment, angles, None, most=2, chunks=4)
    assert [task.key for task in divided] == [
        task.key for task in tasks_of(experiment, angles, None)
    ]
    assert all((task.circuits, task.chunk) == (None, (0, 1)) for task in divided)


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
def test_tasks_share_all_circuits_that_run(experiment, most):
    tasks = tasks_of(experiment, angles_of(experiment), 100, most=most)
    for task in tasks:
        own, numbers = experiment.runs_of(task.circuits), np.zeros_like(experiment.all_runs)
        for measured, group, setting in circuits_in(experiment, task.circuits):
            (family,) = (f for f in experiment.layout.families if f.measured == measured)
            numbers[group, family.numbers[setting]] = True
        assert (own == numbers).all()
        assert own.sum() == task.num_subexperiments(experiment)
    assert (
        sum(experiment.runs_of(task.circuits) * 1 for task in tasks) == experiment.all_runs
    ).all()
    assert experiment.all_runs.sum() == experiment.num_circuits


# --- Parts add up ---------------------------------------------------------------------------------


class Rigged(BaseSamplerV2):
    """Its shots are a function of the circuit and its parameters: what one job would draw of some
    circuits, any other draws, too."""

    def __init__(self):
        self.sent = []

    def run(self, pubs, *, shots=None):
        pubs = [SamplerPub.coerce(pub, shots) for pub in pubs]
        self.sent.append([(pub.size, pub.shots) for pub in pubs])
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
    """Sums over parts, to the bit: counts are whole numbers."""
    for *own, total in zip(*(result.counts for result in (*parts, whole)), strict=True):
        assert total.any()
        assert np.sum(own, axis=0).tobytes() == total.tobytes()


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
    (whole,) = tasks_of(experiment, angles, 30)
    undivided = backend.run(experiment, whole)
    assert_adds_up(parts, undivided)
    first = tensor_of(experiment, angles, tasks, zip(tasks, parts, strict=True))
    assert bits_of(first) == bits_of(tensor_of(experiment, angles, [whole], [(whole, undivided)]))
    # Each job sends its own circuits and no others, those of a family as one PUB.
    sizes = [[size for size, _ in job] for job in jobs]
    assert [sum(job) for job in sizes] == [task.circuits[1] for task in tasks]
    for job, task in zip(sizes, tasks, strict=True):
        own = [family for family, *_ in circuits_in(experiment, task.circuits)]
        assert job == [len(list(same)) for _, same in itertools.groupby(own)]
    (families,) = sampler.sent
    assert sum(size for size, _ in families) == experiment.num_circuits
    assert {shots for job in (*jobs, families) for _, shots in job} == {30}


@pytest.mark.parametrize("most", [None, 20])
@pytest.mark.parametrize("chunks", [1, 3])
def test_how_rows_are_divided_changes_no_bit_of_what_their_counts_give(experiment, chunks, most):
    angles, backend = angles_of(experiment, 2), StatevectorBackend()
    tasks = tasks_of(experiment, angles, 31, rows=1, most=most, chunks=chunks)
    divided = tensor_of(experiment, angles, tasks, results_of(backend, experiment, tasks))
    whole = tasks_of(experiment, angles, 31, rows=1)
    results = [
        (task, FragmentResult(None, tuple(c[task.start : task.start + 1] for c in divided.counts)))
        for task in whole
    ]
    assert bits_of(divided) == bits_of(tensor_of(experiment, angles, whole, results))
    wanted = np.concatenate([task.shots_of(experiment) for task in whole])
    assert (divided.shots(slice(None)) == wanted).all()


# --- Shots that differ from circuit to circuit ----------------------------------------------------


BACKENDS = {
    "statevector": StatevectorBackend,
    "aer": lambda: SamplerBackend(AerSampler()),
    "aer, measured inside": lambda: SamplerBackend(AerSampler(), defer_measurements=False),
    "sampler": lambda: SamplerBackend(Rigged(), defer_measurements=True),
}


@pytest.mark.parametrize("most", [None, 20])
@pytest.mark.parametrize("name", BACKENDS)
def test_circuits_run_with_the_shots_asked_for_and_those_with_none_do_not(experiment, name, most):
    rows = 2
    angles, shots = angles_of(experiment, rows), unequal_shots(experiment, rows)
    backend = BACKENDS[name]()
    work = FragmentWork(backend, (experiment,))
    tasks = tasks_of(experiment, angles, shots, most=most, chunks=2)
    for task in tasks:
        arrays = work.run(task)
        assert work.check(task, arrays) is None
        result = work.result_of(task, arrays)
        assert (shots_in(experiment, result) == task.shots_of(experiment)).all()
        if name == "sampler":
            (job,) = backend.sampler.sent
            backend.sampler.sent = []
            wanted = task.shots_of(experiment)
            assert sum(size for size, _ in job) == np.count_nonzero(wanted)
            assert sum(size * each for size, each in job) == wanted.sum()
    results = results_of(backend, experiment, tasks)
    assert (
        sum(counts[:, 0].sum() for _, r in results for counts in r.counts)
        == (shots * experiment.all_runs).sum()
    )


@pytest.mark.parametrize("name", BACKENDS)
def test_one_number_of_shots_is_the_same_as_an_array_of_it(experiment, name):
    (task,) = tasks_of(experiment, angles_of(experiment, 2), 20)
    shape = 2, len(experiment.groups), experiment.layout.num_settings
    array = replace(task, shots=np.full(shape, 20))
    one, other = (BACKENDS[name]().run(experiment, t) for t in (task, array))
    assert same_counts(one, other)
    assert task.num_subexperiments(experiment) == array.num_subexperiments(experiment)
    work = FragmentWork(StatevectorBackend(), (experiment,))
    assert work.content(array) != work.content(replace(task, shots=np.full(shape, 21)))
    assert work.content(array) == work.content(pickle.loads(pickle.dumps(array)))


@pytest.mark.parametrize("name", ["statevector", "aer"])
def test_unequal_shots_give_unbiased_tensors(name, experiment):
    angles = angles_of(experiment)
    shots = 300 + 10 * unequal_shots(experiment, 1)
    tasks = tasks_of(experiment, angles, shots, most=40, chunks=2)
    backend = BACKENDS[name]()
    assert_unbiased(
        experiment,
        angles,
        tensor_of(experiment, angles, tasks, results_of(backend, experiment, tasks)),
    )


def assert_unbiased(experiment, angles, sampled):
    exact = StatevectorBackend().run(experiment, tasks_of(experiment, angles, None)[0])
    errors = sampled.values - exact.values
    stderrs = np.sqrt(np.maximum(variances_of(sampled), 0.0))  # a sure value's are rounding
    assert sampled.complete
    assert (np.abs(errors) <= MOST * stderrs + 1e-12).all(), (errors / stderrs).round(1)


class Unequal(StatevectorSampler):
    """Takes more shots than it was asked to, another number of every PUB."""

    taken = 0

    def run(self, pubs, *, shots=None):
        pubs = [SamplerPub.coerce(pub, shots) for pub in pubs]
        more = [
            SamplerPub(pub.circuit, pub.parameter_values, pub.shots + 97 * (number % 5))
            for number, pub in enumerate(pubs)
        ]
        type(self).taken = sum(pub.size * pub.shots for pub in more)
        return super().run(more)


@pytest.mark.parametrize("asked", ["equal", "unequal"])
def test_other_numbers_of_shots_than_asked_for_give_unbiased_tensors(experiment, asked):
    """Circuits of a family that are to have other shots are a PUB of their own."""
    angles = angles_of(experiment)
    shots = 400 if asked == "equal" else 400 + 10 * unequal_shots(experiment, 1)
    work = FragmentWork(SamplerBackend(Unequal(), circuits_per_job=40), (experiment,))
    tasks, results = tasks_of(experiment, angles, shots, most=40, chunks=2), []
    for task in tasks:
        arrays = work.run(task)
        assert work.check(task, arrays) is None
        result = work.result_of(task, arrays)
        assert shots_in(experiment, result).sum() == Unequal.taken
        results.append((task, result))
    sampled = tensor_of(experiment, angles, tasks, results)
    taken = sampled.shots(slice(None))[0]
    assert (taken >= shots * experiment.all_runs).all()
    spread = [np.ptp(taken[:, family.numbers]) for family in experiment.layout.families]
    assert any(spread) or (asked == "equal" and np.ptp(taken))
    assert_unbiased(experiment, angles, sampled)


class Strict(Rigged):
    """Refuses more shots of a circuit than a device takes."""

    def __init__(self, most):
        super().__init__()
        self.most = most

    def run(self, pubs, *, shots=None):
        pubs = [SamplerPub.coerce(pub, shots) for pub in pubs]
        assert all(pub.shots <= self.most for pub in pubs)
        return super().run(pubs)


@pytest.mark.parametrize("most", [1, 7, 30, 100])
def test_circuits_that_need_more_shots_than_a_device_takes_are_sent_several_times(most):
    experiment = EXPERIMENTS["observed"]
    sampler = Strict(most)
    backend = SamplerBackend(sampler, defer_measurements=True, shots_per_circuit=most)
    (task,) = tasks_of(experiment, angles_of(experiment), 30)
    result = backend.run(experiment, task)
    assert (shots_in(experiment, result) == task.shots_of(experiment)).all()
    (job,) = sampler.sent
    assert sum(size * shots for size, shots in job) == 30 * experiment.num_circuits
    # As few times as there can be, with shots that differ by one at most.
    assert sum(size for size, _ in job) == experiment.num_circuits * -(-30 // most)
    sizes = {shots for _, shots in job}
    assert max(sizes) - min(sizes) <= 1
    copy = pickle.loads(pickle.dumps(backend))
    assert (copy.shots_per_circuit, copy.identity) == (most, backend.identity)
    assert backend.identity != SamplerBackend(sampler, defer_measurements=True).identity


def test_circuits_sent_several_times_give_unbiased_tensors(experiment):
    angles = angles_of(experiment)
    backend = SamplerBackend(AerSampler(), shots_per_circuit=90)
    tasks = tasks_of(experiment, angles, 400)
    assert_unbiased(
        experiment,
        angles,
        tensor_of(experiment, angles, tasks, results_of(backend, experiment, tasks)),
    )


class Named:
    """A device that says how many shots it takes."""

    name = "named"
    max_shots = 20


def test_a_device_says_how_many_shots_it_takes():
    sampler = Strict(20)
    sampler.backend = lambda: Named
    backend = SamplerBackend(sampler, defer_measurements=True)
    assert backend.shots_per_circuit == 20
    assert SamplerBackend(sampler, shots_per_circuit=5).shots_per_circuit == 5
    assert SamplerBackend(Rigged()).shots_per_circuit is None
    (task,) = tasks_of(PLAIN, np.zeros((1, 0)), 50)
    assert shots_in(PLAIN, backend.run(PLAIN, task)).tolist() == [[[50.0]]]
    assert sampler.sent == [[(1, 17), (1, 17), (1, 16)]]


@pytest.mark.parametrize("most", [0, -3, 2.5, True, "many"])
def test_circuits_of_no_shots_are_refused(most):
    with pytest.raises(InputError, match=r"`shots_per_circuit` is .*: give a whole number"):
        SamplerBackend(StatevectorSampler(), shots_per_circuit=most)


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
    assert_unbiased(
        experiment,
        angles,
        tensor_of(experiment, angles, tasks, results_of(backend, experiment, tasks)),
    )


@pytest.mark.parametrize("size", [0, -3, 2.0, True, None])
def test_jobs_of_no_circuits_are_refused(size):
    with pytest.raises(InputError, match=r"`circuits_per_job` is .*: give a whole number"):
        SamplerBackend(StatevectorSampler(), circuits_per_job=size)


@pytest.mark.parametrize("sampler", [*SAMPLERS.values(), Unequal])
def test_groups_in_one_basis_without_parameters(sampler):
    """More parities than one group tabulates: the same circuit twice, and nothing to bind.

    Each is a PUB of its own, and may get other shots than the other.
    """
    circuit = QuantumCircuit(14)
    circuit.x([0, 9, 13])
    circuit.cz(range(13), range(1, 14))
    (experiment,) = experiments_of(
        circuit, None, ["I" * (13 - q) + "Z" + "I" * q for q in range(14)]
    )
    assert len(experiment.groups) == 2
    (task,) = tasks_of(experiment, np.zeros((1, 0)), 8)
    result = SamplerBackend(sampler()).run(experiment, task)
    shots = [8, 8 + 97] if sampler is Unequal else [8, 8]
    assert shots_in(experiment, result).ravel().tolist() == shots
    values = tensor_of(experiment, np.zeros((1, 0)), [task], [(task, result)]).values
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
        (task, result)
        for task, result in results
        if task.chunk[0] == 0 or (task.chunk[0] == 2 and task.circuits[0] == 20)
    ]
    tensors = [
        tensor_of(experiment, angles, tasks, order)
        for order in (some, data.draw(st.permutations(some)))
    ]
    for tensor in tensors:
        assert tensor.settle() == []
        assert tensor.complete
    # What never arrived leaves no trace, either.
    kept = [task for task, _ in some]
    tensors.append(tensor_of(experiment, angles, kept, some))
    assert tensors[2].complete
    assert bits_of(tensors[0]) == bits_of(tensors[1]) == bits_of(tensors[2])


def flat(ups, downs=0):
    """Counts of `PLAIN` for one row: shots of either sign."""
    return FragmentResult(None, (np.array([[[ups + downs], [ups - downs]]], dtype=float),))


def test_settling_uses_the_shots_there_are():
    tasks = tasks_of(PLAIN, BINDINGS[:1], 7, chunks=3)
    assert [task.shots for task in tasks] == [3, 2, 2]
    results = [(tasks[0], flat(3, 0)), (tasks[2], flat(0, 2))]
    tensor = tensor_of(PLAIN, BINDINGS[:1], tasks, results)
    assert not tensor.complete
    assert tensor.settle() == []
    assert tensor.complete
    assert tensor.values.ravel() == pytest.approx([(3 - 2) / 5], rel=1e-15)
    assert tensor.covariances[0].ravel() == pytest.approx([(1 - 0.2**2) / 4], rel=1e-15)
    with pytest.raises(ValueError, match="not awaited"):
        tensor.add(tasks[1], flat(1, 1))


def test_one_shot_says_nothing_of_its_spread():
    (task,) = tasks_of(PLAIN, BINDINGS[:1], 1)
    tensor = tensor_of(PLAIN, BINDINGS[:1], [task], [(task, flat(0, 1))])
    assert tensor.values.ravel() == [-1.0]
    assert np.isnan(tensor.covariances[0]).all()


def test_settling_says_what_has_no_shots_at_all(arrivals):
    experiment, angles, results = arrivals
    tasks = [task for task, _ in results]
    lost = [task for task in tasks if task.start == 1 and task.circuits[0] == 20]
    some = [(task, r) for task, r in results if task not in lost and task.chunk[0] != 1]
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
    tensor.add(tasks[0], flat(3))
    with pytest.raises(ValueError, match=rf"task {tasks[0].key} is not awaited"):
        tensor.add(tasks[0], flat(3))
    (stranger,) = tasks_of(PLAIN, BINDINGS[1:2], 6)
    with pytest.raises(ValueError, match="not awaited"):
        tensor.add(stranger, flat(3))


REPETITIONS = 400
SPREAD = MOST * np.sqrt(2 / REPETITIONS)
"""How far the mean square of as many standard normals may be from 1: five of its standard
deviations, 0.35. Were a chunk's shots counted twice, it would be at 2."""


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


def matrices_of(tensor, group):
    """Covariances of all entries of the Paulis of a group, shape (rows, entries, entries)."""
    ranks = tensor.experiment.fragment.shape
    width, slots = len(tensor.experiment.groups[group].paulis), len(ranks)
    pairs = [rank for rank in ranks for _ in range(2)]
    table = tensor.covariances[group].reshape(-1, width, width, *pairs)
    own = [3 + 2 * slot for slot in range(slots)]
    table = table.transpose(0, 1, *own, 2, *(place + 1 for place in own))
    return table.reshape(len(table), width * np.prod(ranks), -1)


def fixed_weights(experiment, rows):
    """Those of the gates, as a design would give them."""
    own = experiment.layout.pulled_back(np.eye(experiment.layout.size))
    return [np.tile(own, (rows, len(group.paulis), 1, 1)) for group in experiment.groups]


def drawn(experiment, rows, *, weighted=False):
    angles, backend = angles_of(experiment, rows), StatevectorBackend()
    tasks = tasks_of(experiment, angles, 40, most=20, chunks=2)
    weights = fixed_weights(experiment, rows) if weighted else None
    return tensor_of(experiment, angles, tasks, results_of(backend, experiment, tasks), weights)


def test_weights_of_a_design_do_as_those_of_the_gates(experiment):
    plain, weighted = drawn(experiment, 2), drawn(experiment, 2, weighted=True)
    pairs = zip(
        (plain.values, *plain.covariances), (weighted.values, *weighted.covariances), strict=True
    )
    for own, other in pairs:
        np.testing.assert_allclose(other, own, rtol=0, atol=1e-12 * np.abs(own).max())


@pytest.mark.parametrize("weighted", [False, True])
def test_variances_are_the_forms_of_the_covariances(experiment, weighted):
    tensor = drawn(experiment, 3, weighted=weighted)
    rng, rows = np.random.default_rng(2), np.array([2, 0, 0, 1])
    vectors = rng.normal(size=(len(rows), *tensor.values.shape[1:]))
    found = tensor.variances(Sensitivity(rows, np.arange(len(rows)), vectors[None]))
    expected = np.zeros(len(rows))
    for number, group in enumerate(experiment.groups):
        own = vectors[:, list(group.paulis)].reshape(len(rows), -1)
        expected += np.einsum("ea,eab,eb->e", own, matrices_of(tensor, number)[rows], own)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


# --- What travels ---------------------------------------------------------------------------------


def test_works_travel_and_keep_their_key(experiment):
    work, other = (FragmentWork(StatevectorBackend(), (experiment,)) for _ in range(2))
    assert work.key != other.key
    copy = pickle.loads(pickle.dumps(work))
    assert copy.key == work.key
    for task in tasks_of(experiment, angles_of(experiment), 20, most=9, chunks=2):
        own, its = work.run(task), copy.run(pickle.loads(pickle.dumps(task)))
        assert [a.tobytes() for a in own] == [a.tobytes() for a in its]
        result = work.result_of(task, own)
        assert (result.values, result.counts, result.draws) == (None, own, None)
        drawn = work.result_of(task, (*own, np.zeros(257)))
        assert drawn.counts == own
        assert drawn.draws.shape == (257,)
    (exact,) = tasks_of(experiment, angles_of(experiment), None)
    own = work.run(exact)
    result = work.result_of(exact, own)
    assert (result.counts, result.draws) == ((), None)
    assert result.values is own[0]


def test_what_an_experiment_derives_stays_at_home():
    """The layout of the settings and all that follows from it: many times the fragment itself."""
    fresh, used = observed(), observed()
    angles = angles_of(used)
    tasks = tasks_of(used, angles, 20)
    tensor = tensor_of(used, angles, tasks, results_of(StatevectorBackend(), used, tasks))
    assert tensor.covariances
    # The bases of slots are kept with their sides, and travel.
    assert len(pickle.dumps(used)) < 2 * len(pickle.dumps(fresh)) < 100_000
    assert len(pickle.dumps(used.layout)) > 5 * len(pickle.dumps(used))
    assert pickle.loads(pickle.dumps(used)).key == fresh.key


# --- Damaged results ------------------------------------------------------------------------------


@pytest.mark.parametrize("shots", [None, 1, 2, 30])
def test_sound_results_pass(experiment, shots):
    work = FragmentWork(StatevectorBackend(), (experiment,))
    angles = angles_of(experiment, 2)
    for task in tasks_of(experiment, angles, shots, most=60):
        assert work.check(task, work.run(task)) is None


def with_entry(array, value):
    damaged = array.copy()
    damaged.flat[-1] = value
    return damaged


def without_a_circuit(counts):
    """The first setting of the second row has lost its shots."""
    layout = EXPERIMENTS["observed"].layout
    damaged = counts.copy()
    damaged[1][:, layout.setting_of == 0] = 0.0
    return damaged


DAMAGES = {
    "nothing": (lambda first, *rest: (), "0 arrays came back instead of 3"),
    "one group": (lambda first, *rest: (first,), "1 arrays came back instead of 3"),
    "too many": (lambda *arrays: (*arrays, arrays[0]), "4 arrays came back instead of 3"),
    "rows": (
        lambda first, *rest: (first[:1], *rest),
        r"counts of measurement group 0 have shape \(1, .* instead of \(2",
    ),
    "products": (
        lambda first, second, *rest: (first, second[:, :-1], *rest),
        "the counts of measurement group 1 have shape",
    ),
    "halved": (lambda first, *rest: (first.astype("f4"), *rest), "group 0 are float32"),
    "list": (lambda first, *rest: (first.tolist(), *rest), "group 0 are list instead"),
    "nan": (
        lambda first, *rest: (with_entry(first, np.nan), *rest),
        "counts of measurement group 0 are not all finite",
    ),
    "infinite": (
        lambda first, second, *rest: (first, with_entry(second, -np.inf), *rest),
        "the counts of measurement group 1 are not all finite",
    ),
    "half a shot": (
        lambda first, *rest: (with_entry(first, 0.5), *rest),
        "the counts of measurement group 0 are not whole numbers, or larger than the shots",
    ),
    "frequencies": (
        lambda *arrays: tuple(counts / 30 for counts in arrays),
        "group 0 are not whole numbers",
    ),
    "larger than the shots": (
        lambda first, second, *rest: (first, with_entry(second, 31.0), *rest),
        "the counts of measurement group 1 are not whole numbers, or larger than the shots",
    ),
    "larger on the other side": (
        lambda first, *rest: (with_entry(first, -31.0), *rest),
        "group 0 are not whole numbers, or larger than the shots",
    ),
    "negative": (lambda *arrays: tuple(-counts for counts in arrays), "larger than the shots"),
    "no shots": (
        lambda *arrays: tuple(0 * counts for counts in arrays),
        "other circuits of measurement group 0 have shots than were to run",
    ),
    "no shots of one circuit": (
        lambda first, second, third: (first, second, without_a_circuit(third)),
        "other circuits of measurement group 2 have shots than were to run",
    ),
    "draws": (lambda *arrays: (*arrays, np.array([np.nan])), "the draws are not all finite"),
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


def test_results_of_circuits_that_another_task_runs_are_refused(experiment):
    """They would count twice."""
    work = FragmentWork(StatevectorBackend(), (experiment,))
    angles = angles_of(experiment)
    (whole,) = tasks_of(experiment, angles, 30)
    arrays = work.run(whole)
    shots = np.where(np.arange(experiment.layout.num_settings) == 1, 0, 30)
    for task in (*tasks_of(experiment, angles, 30, most=4), replace(whole, shots=shots)):
        assert work.check(task, work.run(task)) is None
        if task.shots_of(experiment).all() < whole.shots_of(experiment).all():
            assert "other circuits of measurement group" in work.check(task, arrays)


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
