"""Fragments on samplers for real: Aer, a noise model, a device with a layout, Qiskit's own."""

from __future__ import annotations

import itertools
import pickle

import gate_catalogue as catalogue
import numpy as np
import pytest
from helpers import entangled
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.primitives import (
    BackendSamplerV2,
    BaseSamplerV2,
    BitArray,
    DataBin,
    PrimitiveJob,
    PrimitiveResult,
    SamplerPubResult,
    StatevectorSampler,
)
from qiskit.primitives.containers.sampler_pub import SamplerPub
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.quantum_info import SparsePauliOp
from qiskit.transpiler import CouplingMap
from qiskit_addon_cutting.instructions import CutWire
from qiskit_aer import AerSimulator
from qiskit_aer.noise import NoiseModel, depolarizing_error
from qiskit_aer.primitives import SamplerV2
from qiskit_ibm_runtime import SamplerV2 as RuntimeSampler
from qiskit_ibm_runtime.executor_sampler import Sampler as ExecutorSampler

from distributed_estimator import DistributedEstimator, EstimatorOptions
from distributed_estimator.backends.sampler import SamplerBackend
from distributed_estimator.backends.seeds import Repetition, draws_of
from distributed_estimator.errors import BackendError, DistributedEstimatorError
from distributed_estimator.execution import Deadline, Policy
from distributed_estimator.records import RecordWriter, TaskRecord, read_records

# Aer says so of a device that names no relaxation times.
pytestmark = pytest.mark.filterwarnings("ignore:.*has no QubitProperties:UserWarning")

MOST = 5.0
"""Standard errors a value may be off by: a normal does so once in two million values, and fewer
than a thousand are drawn here, with fixed seeds."""


def device(**options):
    """A line of five qubits without noise: circuits are routed and measured on the way."""
    return GenericBackendV2(
        5, coupling_map=CouplingMap.from_line(5), noise_info=False, seed=1, **options
    )


SAMPLERS = {
    "aer": lambda: SamplerV2(),
    "statevector": lambda: StatevectorSampler(),
    "backend on aer": lambda: BackendSamplerV2(backend=AerSimulator()),
    "backend on a line": lambda: BackendSamplerV2(backend=device()),
    "simulator of aer": lambda: AerSimulator(),
    "aer on a line": lambda: SamplerV2.from_backend(AerSimulator.from_backend(device())),
}


def estimate(
    sampler,
    circuit,
    observables,
    labels,
    values=None,
    *,
    shots=1024,
    workers=2,
    trace=None,
    **options,
):
    options = EstimatorOptions(**{"seed": 3, "shots": shots, **options})
    estimator = DistributedEstimator(
        labels, backend=sampler, workers=workers, options=options, trace=trace
    )
    pub = (circuit, observables) if values is None else (circuit, observables, values)
    return estimator.run([pub]).result()[0]


def scores(sampler, circuit, observables, labels, values=None, **options):
    """(value − exact) / stderr."""
    pub = (circuit, observables) if values is None else (circuit, observables, values)
    exact = DistributedEstimator(labels, workers=2).run([pub], precision=0).result()[0].data.evs
    data = estimate(sampler, circuit, observables, labels, values, **options).data
    assert (data.stds > 0).all()
    return (data.evs - exact) / data.stds


def assert_close(*args, **options):
    z = scores(*args, **options)
    assert np.abs(z).max() <= MOST, z


def noise(rate=0.1):
    model = NoiseModel()
    model.add_all_qubit_quantum_error(depolarizing_error(rate, 2), ["cx"])
    return model


BASES = SparsePauliOp(["ZZZ", "XIX", "YYI", "IZX", "III"], [1, 0.5, -0.7, 0.3, 2])


def gates():
    """A cut of a CX and of a symbolic gate, and a parameter on each side."""
    x = ParameterVector("x", 3)
    circuit = entangled(3, 1, layers=1)
    circuit.ry(x[0], 0)
    circuit.rzz(x[1], 0, 1)
    circuit.rx(x[2], 1)
    circuit.cx(1, 2)
    return circuit.compose(entangled(3, 2, layers=0))


def wires():
    x = ParameterVector("x", 3)
    circuit = entangled(3, 3, layers=1)
    circuit.ry(x[0], 0)
    circuit.cx(0, 1)
    circuit.append(CutWire(), [1])
    circuit.rx(x[1], 1)
    circuit.crx(x[2], 1, 2)
    circuit.u(0.3, 0.4, 0.5, 1)
    return circuit


POINTS = np.array([[0.3, -0.8, 1.1], [1.3, 0.5, -0.4], [0.3, 2.2, 1.1]])


# --- Every sampler --------------------------------------------------------------------------------

# Those on a line run shot by shot, and are slow: they have the small basis and one point alone.
each_sampler = pytest.mark.parametrize(
    ("basis", "name"),
    [(b, n) for b in ("full", "minimal") for n in SAMPLERS if b == "minimal" or "line" not in n],
)


@each_sampler
def test_gate_cuts(name, basis):
    observables = [[BASES], ["ZZZ"], ["XYX"]]
    points = POINTS[:1] if "line" in name else POINTS
    assert_close(
        SAMPLERS[name](), gates(), observables, "ABB", points, shots=512, setting_basis=basis
    )


@each_sampler
def test_wire_cuts(name, basis):
    observables = [[BASES], ["XZY"]]
    points = POINTS[:1] if "line" in name else POINTS
    assert_close(
        SAMPLERS[name](), wires(), observables, None, points, shots=512, setting_basis=basis
    )


@pytest.mark.parametrize("name", SAMPLERS)
def test_fragments_that_are_not_observed(name):
    """The last fragment is cut off and not measured: what matters of it are its slots."""
    circuit = entangled(3, 8)
    assert_close(SAMPLERS[name](), circuit, ["IIZ", "IXX"], "AAB", shots=256)


# --- Controlled rotations, which Aer binds wrongly ------------------------------------------------

CONTROLLED = [name for name in catalogue.CONTROLLED if catalogue.ANGLES[name]]


@pytest.mark.parametrize("name", ["aer", "statevector", "backend on aer"])
@pytest.mark.parametrize("gate", [*CONTROLLED, "XXPlusYYGate"])
def test_parameterised_controlled_rotations(name, gate):
    angles = ParameterVector("x", catalogue.ANGLES[gate])
    circuit = entangled(3, 4, layers=1)
    circuit.append(catalogue.make(gate, angles), [0, 1])
    circuit.h(range(3))
    points = np.random.default_rng(2).uniform(-3, 3, (4, 1, len(angles)))
    observables = ["IZZ", "IIX", "IYI"]
    assert_close(SAMPLERS[name](), circuit, observables, "AAB", points, shots=1024)


# --- Deferral -------------------------------------------------------------------------------------


def test_measurements_are_deferred_for_noiseless_local_simulators_alone():
    options = {"noise_model": noise()}
    deferred = [
        SamplerV2(),
        SamplerV2(options={"backend_options": {"method": "statevector"}}),
        StatevectorSampler(),
        BackendSamplerV2(backend=AerSimulator()),
    ]
    kept = [
        SamplerV2(options={"backend_options": options}),
        SamplerV2(options={"run_options": options}),
        SamplerV2.from_backend(AerSimulator(**options)),
        SamplerV2.from_backend(GenericBackendV2(3, seed=1)),
        BackendSamplerV2(backend=AerSimulator(**options)),
        BackendSamplerV2(backend=AerSimulator(), options={"run_options": options}),
        BackendSamplerV2(backend=device()),
        Recording(),
    ]
    assert [SamplerBackend(sampler).defer_measurements for sampler in deferred] == [True] * 4
    assert [SamplerBackend(sampler).defer_measurements for sampler in kept] == [False] * 8
    assert SamplerBackend(kept[0], defer_measurements=True).defer_measurements
    assert not SamplerBackend(deferred[0], defer_measurements=False).defer_measurements


def test_simulator_noise_of_the_runtime_is_not_deferred():
    options = {"simulator": {"noise_model": noise()}}
    with pytest.warns(DeprecationWarning, match="SamplerV2 class is deprecated"):
        sampler = RuntimeSampler(mode=AerSimulator(), options=options)
    assert not SamplerBackend(sampler).defer_measurements


@pytest.mark.parametrize("name", ["aer", "backend on aer"])
def test_measurements_inside_circuits_give_the_same(name):
    backend = SamplerBackend(SAMPLERS[name](), defer_measurements=False)
    options = {"shots": 512, "setting_basis": "minimal"}
    assert_close(backend, gates(), ["ZZZ", "XYX"], "ABB", POINTS[:1, None], **options)


@pytest.mark.parametrize("where", ["backend_options", "run_options"])
def test_noise_changes_values(where):
    """Two cx inside a fragment of a GHZ state, each depolarised by 0.3: ⟨ZZ⟩ falls well below 1."""
    circuit = QuantumCircuit(4)
    circuit.h(0)
    for qubit in range(3):
        circuit.cx(qubit, qubit + 1)
    found = estimate(SamplerV2(), circuit, ["IIZZ", "XXXX"], "AAAB", shots=4096)
    quiet, quiet_name = found.data, found.metadata["backend"]
    sampler = SamplerV2(options={where: {"noise_model": noise(0.3)}})
    loud = estimate(sampler, circuit, ["IIZZ", "XXXX"], "AAAB", shots=4096)
    assert quiet_name == "qiskit_aer.SamplerV2"
    assert loud.metadata["backend"] == "qiskit_aer.SamplerV2(noise model)"
    assert np.abs(quiet.evs - 1).max() <= MOST * quiet.stds.max()
    # Depolarising by 0.3 leaves ZZ at 0.7, and the second cx can but lower it.
    assert loud.data.evs[0] <= 0.7 + MOST * loud.data.stds[0]
    assert loud.data.evs[1] <= 0.7 + MOST * loud.data.stds[1]


def test_noisy_device_runs():
    backend = GenericBackendV2(5, coupling_map=CouplingMap.from_line(5), seed=1)
    names = []
    for sampler in (BackendSamplerV2(backend=backend), SamplerV2.from_backend(backend)):
        options = {"shots": 128, "setting_basis": "minimal"}
        result = estimate(sampler, gates(), [BASES], "ABB", POINTS[0], **options)
        assert np.isfinite(result.data.evs).all()
        assert (result.data.stds > 0).all()
        names.append(result.metadata["backend"])
    assert names == [
        "qiskit.BackendSamplerV2(generic_backend_5q)",
        "qiskit_aer.SamplerV2(aer_simulator_from(generic_backend_5q))",
    ]


# --- What is refused ------------------------------------------------------------------------------


def test_exact_values_are_refused():
    estimator = DistributedEstimator("ABB", backend=SamplerV2())
    job = estimator.run([(gates(), "ZZZ", POINTS[0])], precision=0)
    with pytest.raises(BackendError, match=r"`precision` is 0, but .* qiskit_aer\.SamplerV2"):
        job.result()


@pytest.mark.parametrize("make", [BackendSamplerV2, SamplerV2.from_backend])
def test_fragments_wider_than_the_device_are_refused_before_anything_runs(make):
    sampler = make(backend=device())
    circuit = entangled(7, 1)
    with pytest.raises(BackendError, match=r"6 qubits, .*generic_backend_5q\)+ takes 5: cut more"):
        estimate(sampler, circuit, "Z" * 7, "AAAAAAB", shots=10)
    estimate(sampler, circuit, "Z" * 7, "AAAABBB", shots=10)


def test_sampler_that_refuses_measurements_inside_a_circuit():
    backend = SamplerBackend(StatevectorSampler(), defer_measurements=False)
    with pytest.raises(BackendError, match="defer_measurements=True") as caught:
        estimate(backend, gates(), "ZZZ", "ABB", POINTS[0], setting_basis="minimal")
    assert "StatevectorSampler" in str(caught.value)
    assert caught.value.__cause__ is not None


class Recording(BaseSamplerV2):
    """Qiskit's own sampler, with a list of the jobs it was given and shots of its own choice."""

    def __init__(self, take=lambda shots, pub: shots, lacks=()):
        self.jobs = []
        self._numbers = itertools.count()
        self._take = take
        self._lacks = set(lacks)

    def run(self, pubs, *, shots=None):
        pubs = [SamplerPub.coerce(pub, shots) for pub in pubs]
        self.jobs.append(pubs)
        job = PrimitiveJob(self._run, pubs)
        job._submit()
        return job

    def _run(self, pubs):
        results = []
        job = next(self._numbers)
        for number, pub in enumerate(pubs):
            missing = self._lacks & set(pub.circuit.count_ops())
            if missing:
                raise ValueError(f"unknown instruction: {missing.pop()}")
            inner = StatevectorSampler(seed=np.random.default_rng((1, job, number)))
            results += inner.run(
                [(pub.circuit, pub.parameter_values)], shots=self._take(pub.shots, number)
            ).result()
        return PrimitiveResult(results)


def deferring(**options):
    sampler = Recording(**options)
    return sampler, SamplerBackend(sampler, defer_measurements=True)


def test_sampler_that_lacks_a_gate():
    circuit = entangled(3, 4, gate="ecr")
    _, backend = deferring(lacks=["ecr"])
    with pytest.raises(BackendError, match=r"unknown instruction: ecr.*transpile the circuit"):
        estimate(backend, circuit, "ZZZ", "AAB")


def test_a_precision_is_met_by_shots_that_are_rounded_up():
    """A pilot that got 1000 shots a circuit is a good one, and the first round is enough."""
    sampler, backend = deferring(take=lambda shots, pub: -(-shots // 1000) * 1000)
    options = EstimatorOptions(seed=1, setting_basis="minimal")
    estimator = DistributedEstimator("ABB", backend=backend, options=options, workers=1)
    result = estimator.run([(gates(), "ZZZ", POINTS[0])], precision=0.02).result()[0]
    assert result.data.stds <= 0.02
    assert result.metadata["shots_total"] % 1000 == 0
    # Two fragments, each a job of the pilot and of one round.
    assert len(sampler.jobs) == 2 * 2


OTHER_SHOTS = {
    "more": lambda shots, pub: shots + 100 * (pub % 3),
    "fewer": lambda shots, pub: shots - 100 * (pub % 3),
    "by the thousand": lambda shots, pub: -(-shots // 1000) * 1000,
}


@pytest.mark.parametrize("name", OTHER_SHOTS)
def test_samplers_may_take_other_numbers_of_shots_than_asked_for(name):
    """Every PUB another number."""
    _, backend = deferring(take=OTHER_SHOTS[name])
    options = {"shots": 512, "setting_basis": "minimal"}
    assert_close(backend, gates(), [["ZZZ"], ["XYX"]], "ABB", POINTS, **options)


@pytest.mark.parametrize("name", OTHER_SHOTS)
def test_shots_that_differ_are_counted_each(name, tmp_path):
    sampler, backend = deferring(take=OTHER_SHOTS[name])
    with RecordWriter(tmp_path / "trace.jsonl") as trace:
        options = {"shots": 512, "setting_basis": "minimal", "trace": trace}
        metadata = estimate(backend, gates(), "ZZZ", "ABB", POINTS[0], **options).metadata
    jobs = [
        [(pub.size, OTHER_SHOTS[name](pub.shots, number)) for number, pub in enumerate(job)]
        for job in sampler.jobs
    ]
    sizes, taken = zip(*itertools.chain(*jobs), strict=True)
    assert sum(sizes) == metadata["num_subexperiments"]
    assert metadata["shots_total"] == np.dot(sizes, taken)
    assert metadata["shots"] == (taken[0] if len(set(taken)) == 1 else None)
    # Of a task, on average over its circuits.
    tasks = [r for r in read_records(trace.path) if isinstance(r, TaskRecord)]
    means = [round(np.average([t for _, t in job], weights=[s for s, _ in job])) for job in jobs]
    assert sorted(task.shots for task in tasks) == sorted(means)


def test_values_that_are_sure_are_so_with_any_number_of_shots():
    circuit = QuantumCircuit(3)
    circuit.x([0, 2])
    for take in OTHER_SHOTS.values():
        _, backend = deferring(take=take)
        data = estimate(backend, circuit, ["IIZ", "IZI", "ZZZ"], "ABC", shots=300).data
        assert data.evs.tolist() == [-1.0, 1.0, 1.0]
        assert data.stds.tolist() == [0.0, 0.0, 0.0]


def test_no_shots_at_all_are_refused():
    _, backend = deferring(take=lambda shots, pub: shots if pub else 0)
    with pytest.raises(DistributedEstimatorError, match=r"have shots|failed on fragment"):
        estimate(backend, gates(), "ZZZ", "ABB", POINTS[0], shots=512, setting_basis="minimal")


class AtMost(Recording):
    """Refuses more than a hundred shots of a circuit."""

    def run(self, pubs, *, shots=None):
        if any(SamplerPub.coerce(pub, shots).shots > 100 for pub in pubs):
            raise ValueError("more than 100 shots")
        return super().run(pubs, shots=shots)


def test_more_shots_than_a_device_takes_are_divided():
    with pytest.raises(BackendError, match="more than 100 shots"):
        estimate(AtMost(), entangled(3, 7), "ZZZ", "ABB", shots=512)
    sampler = AtMost()
    backend = SamplerBackend(sampler, defer_measurements=True, shots_per_circuit=100)
    points = POINTS[:1]
    options = {"shots": 512, "setting_basis": "minimal"}
    assert_close(backend, gates(), [["ZZZ"], ["XYX"]], "ABB", points, **options)
    # Six times, as few as there can be, each with as many shots as the others or one less.
    shots = [pub.shots for job in sampler.jobs for pub in job]
    assert set(shots) == {85, 86}
    assert len(shots) % 6 == 0
    metadata = estimate(backend, gates(), "ZZZ", "ABB", POINTS[0], **options).metadata
    assert metadata["shots"] == 512
    assert metadata["shots_total"] == 512 * metadata["num_subexperiments"]


class Silent(Recording):
    """Answers with registers of other names."""

    def _run(self, pubs):
        bits = BitArray(np.zeros((*pubs[0].shape, 4, 1), dtype=np.uint8), 1)
        return PrimitiveResult(
            [SamplerPubResult(DataBin(other=bits, shape=pubs[0].shape))] * len(pubs)
        )


def test_answers_that_do_not_fit():
    with pytest.raises(BackendError, match="Silent failed on fragment"):
        estimate(Silent(), gates(), "ZZZ", "ABB", POINTS[0])


# --- Jobs, shots and seeds ------------------------------------------------------------------------


@pytest.mark.parametrize("basis", ["full", "minimal"])
def test_a_family_is_a_pub_and_a_fragment_a_job(basis):
    """Each of two one-qubit fragments with one slot: settings that measure there, and others."""
    circuit = QuantumCircuit(2)
    x = ParameterVector("x", 2)
    circuit.ry(x[0], 0)
    circuit.ry(x[1], 1)
    circuit.cx(0, 1)
    circuit.ry(0.3, [0, 1])
    sampler, backend = deferring()
    points = np.random.default_rng(1).uniform(-1, 1, (7, 2))
    observable = SparsePauliOp(["ZZ", "XX"])
    result = estimate(backend, circuit, observable, "AB", points, shots=16, setting_basis=basis)
    assert [len(job) for job in sampler.jobs] == [2, 2]
    sizes = [[pub.parameter_values.size for pub in job] for job in sampler.jobs]
    total = sum(map(sum, sizes))
    assert total == result.metadata["num_subexperiments"]
    assert all(size % (7 * 2) == 0 for job in sizes for size in job)
    assert result.metadata["shots_total"] == 16 * total
    assert {pub.shots for job in sampler.jobs for pub in job} == {16}
    one = estimate(backend, circuit, observable, "AB", points[0], shots=16, setting_basis=basis)
    assert 7 * one.metadata["num_subexperiments"] == total


@pytest.mark.parametrize("name", ["aer", "statevector", "backend on aer"])
def test_same_seed_same_bits(name):
    def values(seed, workers=2):
        options = EstimatorOptions(shots=64, seed=seed, setting_basis="minimal")
        estimator = DistributedEstimator(
            "ABB", backend=SAMPLERS[name](), options=options, workers=workers
        )
        pub = (gates(), ["ZZZ", "XYX"], POINTS[:, None])
        return [estimator.run([pub]).result()[0].data.evs for _ in range(2)]

    first, second, other = values(5), values(5, workers=1), values(6)
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first, other)


def test_own_seed_and_options_of_the_sampler_stay():
    sampler = SamplerV2(default_shots=7, seed=42, options={"run_options": {"shot_branching": True}})
    assert_close(sampler, gates(), "ZZZ", "ABB", POINTS[0], setting_basis="minimal")
    assert (sampler.seed, sampler.default_shots) == (42, 7)
    assert sampler.options.run_options == {"shot_branching": True}


class OwnStatevectorSampler(StatevectorSampler):
    """Keeps what a caller's class adds."""

    def __init__(self, seed, calls):
        super().__init__(seed=seed)
        self.calls = calls

    def run(self, pubs, *, shots=None):
        self.calls.append(shots)
        return super().run(pubs, shots=shots)


class OwnAerSampler(SamplerV2):
    pass


class OwnBackendSampler(BackendSamplerV2):
    pass


class Wrapper(BaseSamplerV2):
    """Hides another sampler, or one that is made for every job."""

    def __init__(self, inner):
        self._inner = inner

    def run(self, pubs, *, shots=None):
        inner = self._inner if isinstance(self._inner, BaseSamplerV2) else self._inner()
        return inner.run(pubs, shots=shots)


class Fixed(StatevectorSampler):
    """Takes a seed and does not use it."""

    def run(self, pubs, *, shots=None):
        return StatevectorSampler(seed=5).run(pubs, shots=shots)


@pytest.mark.parametrize("kind", [SamplerV2, BackendSamplerV2])
def test_circuits_with_other_numbers_of_shots_have_other_seeds(kind):
    """Simulators run those with one number together, each such group with the sampler's seed."""
    runs = []

    class Noted(kind):
        def run(self, pubs, *, shots=None):
            seed = self._seed if kind is SamplerV2 else self.options.seed_simulator
            runs.append((seed, {shots} if shots else {pub[2] for pub in pubs}))
            return super().run(pubs, shots=shots)

    sampler = Noted() if kind is SamplerV2 else Noted(backend=AerSimulator())
    options = EstimatorOptions(shots_total=3000, seed=1)
    with DistributedEstimator("AB", sampler, workers=1, options=options) as estimator:
        estimator.run([(entangled(2, 1), "ZZ")]).result()
    assert len(runs) > 4
    assert all(len(numbers) == 1 for _, numbers in runs)
    assert len({seed for seed, _ in runs}) == len(runs)


SIMULATOR_SEED = {"simulator": {"seed_simulator": 42}}

SEEDED = {
    "runtime": lambda: RuntimeSampler(mode=AerSimulator(), options=SIMULATOR_SEED),
    "runtime, backend's seed": lambda: RuntimeSampler(mode=AerSimulator(seed_simulator=42)),
    "executor": lambda: ExecutorSampler(mode=AerSimulator(), options=SIMULATOR_SEED),
    "executor, backend's seed": lambda: ExecutorSampler(mode=AerSimulator(seed_simulator=42)),
    "own statevector": lambda: OwnStatevectorSampler(42, []),
    "own aer": lambda: OwnAerSampler(seed=42),
    "aer, backend's seed": lambda: SamplerV2.from_backend(AerSimulator(seed_simulator=42)),
    "aer, seed of runs": lambda: SamplerV2(options={"run_options": {"seed_simulator": 42}}),
    "own backend sampler": lambda: OwnBackendSampler(
        backend=AerSimulator(), options={"seed_simulator": 42}
    ),
    "backend's seed": lambda: BackendSamplerV2(backend=AerSimulator(seed_simulator=42)),
}
"""Local simulators with seeds of their own, which give way to those of tasks."""

REPEATING = {
    "statevector": lambda: Wrapper(StatevectorSampler(seed=42)),
    "aer": lambda: Wrapper(SamplerV2(seed=42)),
    "backend's seed": lambda: Wrapper(BackendSamplerV2(backend=AerSimulator(seed_simulator=42))),
    "runtime": lambda: Wrapper(SEEDED["runtime"]()),
    "executor": lambda: Wrapper(SEEDED["executor"]()),
    "fixed": Fixed,
    "copies": lambda: Wrapper(lambda: StatevectorSampler(seed=np.random.default_rng(42))),
}
"""Samplers that draw the same numbers in every job, and whose seed cannot be replaced."""


def four_alike():
    """Four fragments of one qubit: with the same random numbers their errors are the same."""
    x = Parameter("x")
    circuit = QuantumCircuit(4)
    circuit.ry(x, range(4))
    return circuit


def spread_over_claimed(sampler, count):
    """Of `count` slightly different bindings, which have shots of their own."""
    points = np.linspace(0.5, 0.7, count)
    z = scores(sampler, four_alike(), "ZZZZ", "ABCD", points[:, None], shots=500)
    return np.sqrt((z**2).mean())


@pytest.mark.filterwarnings("ignore:The SamplerV2 class is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", SEEDED)
def test_seeds_of_samplers_give_way_to_those_of_tasks(name):
    """Mean z² of 100 is 1 within √(2/100) = 0.14, of which 0.7 is five; repeated numbers give 4.2,
    the square of 2.05."""
    assert abs(spread_over_claimed(SEEDED[name](), 100) ** 2 - 1) <= 0.7


def test_what_a_class_adds_to_a_sampler_stays():
    sampler = OwnStatevectorSampler(42, calls := [])
    estimate(sampler, four_alike(), "ZZZZ", "ABCD", [0.6], shots=50)
    assert len(calls) == 4
    assert sampler.seed == 42


@pytest.mark.filterwarnings("ignore:The SamplerV2 class is deprecated:DeprecationWarning")
@pytest.mark.parametrize("spread", [0, 0.1])
@pytest.mark.parametrize("name", REPEATING)
def test_samplers_that_repeat_themselves_are_refused(name, spread):
    """Also where no two circuits are the same."""
    circuit = QuantumCircuit(4)
    for qubit in range(4):
        circuit.ry(0.6 + spread * qubit, qubit)
    with pytest.raises(BackendError, match=r"same random numbers.*Take the seed out of it") as info:
        estimate(REPEATING[name](), circuit, "ZZZZ", "ABCD", shots=500)
    assert type(REPEATING[name]()).__name__ in str(info.value)


def test_a_run_that_is_repeated_by_right_is_no_repetition():
    options = EstimatorOptions(seed=3, shots=500)
    estimator = DistributedEstimator("AB", StatevectorSampler(), options=options)
    circuit = QuantumCircuit(2)
    circuit.ry(0.6, [0, 1])
    first = estimator.run([(circuit, "ZZ")]).result()[0].data.evs
    estimator.continue_run(estimator.run_id, 0)
    assert estimator.run([(circuit, "ZZ")]).result()[0].data.evs == first


def test_circuits_of_one_job_that_repeat_each_other_are_refused():
    """A number as seed of a statevector sampler is the seed of every circuit."""
    seeds = itertools.count()
    sampler = Wrapper(lambda: StatevectorSampler(seed=next(seeds)))
    with pytest.raises(BackendError, match="same random numbers"):
        estimate(sampler, four_alike(), "ZZZZ", None, [[0.6], [0.7]], shots=500)


def test_outcomes_that_are_certain_are_no_repetition():
    sampler = Wrapper(StatevectorSampler(seed=42))
    for _ in range(2):
        assert estimate(sampler, four_alike(), "ZZZZ", "ABCD", [0.0]).data.evs == 1


@pytest.mark.parametrize("shots", [16, 100, 1000])
@pytest.mark.parametrize("order", ["random", "sorted", "one bit sorted", "first seen"])
def test_independent_tasks_are_no_repetition_in_whatever_order_shots_come(order, shots):
    """Circuits of two bits, all the same in all of 70 tasks."""
    rng = np.random.default_rng(4)
    repetition = Repetition()
    circuits = 4096 // shots + 1
    for number in range(70):
        outcomes = rng.choice(4, (circuits, shots), p=[0.7, 0.1, 0.05, 0.15])
        if order == "sorted":
            outcomes.sort(axis=1)
        if order == "one bit sorted":
            outcomes = np.take_along_axis(outcomes, (outcomes % 2).argsort(1, kind="stable"), 1)
        if order == "first seen":
            places = (outcomes[:, None] == np.arange(4)[None, :, None]).argmax(axis=2)
            ranks = np.take_along_axis(places, outcomes, 1)
            outcomes = np.take_along_axis(outcomes, ranks.argsort(1, kind="stable"), 1)
        bits = BitArray(outcomes[..., None].astype(np.uint8), 2)
        result = SamplerPubResult(DataBin(bits=bits, shape=(circuits,)))
        repetition.check(draws_of([result]), "it", number)


@pytest.mark.parametrize("name", ["aer", "statevector"])
def test_estimators_with_samplers_pickle(name):
    options = EstimatorOptions(shots=64, seed=5, setting_basis="minimal")
    estimator = DistributedEstimator("ABB", backend=SAMPLERS[name](), options=options, workers=2)
    pub = (gates(), "ZZZ", POINTS[0])
    copied = pickle.loads(pickle.dumps(estimator))
    one, two = (each.run([pub]).result()[0].data.evs for each in (estimator, copied))
    np.testing.assert_array_equal(one, two)
    assert copied.backend.defer_measurements
    third = pickle.loads(pickle.dumps(estimator)).run([pub]).result()[0].data.evs
    assert not np.array_equal(one, third)


# --- Wide fragments -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["stabilizer", "matrix_product_state"])
def test_wide_fragments(method):
    """A state vector of 34 qubits would take 256 GiB: the sampler knows better."""
    circuit = QuantumCircuit(36)
    circuit.h(0)
    for qubit in range(35):
        circuit.cx(qubit, qubit + 1)
    sampler = SamplerV2(options={"backend_options": {"method": method}})
    observables = ["Z" * 36, "X" * 36]
    data = estimate(sampler, circuit, observables, "A" * 34 + "B" * 2, shots=256).data
    assert (np.abs(data.evs - 1) <= MOST * data.stds + 1e-9).all()


@pytest.mark.soak
def test_errors_of_aer_are_as_said():
    """Mean z² of n independent normal z is 1 within √(2/n): for n = 300, five of them are 0.41,
    and five of the mean z, 1/√n, are 0.29."""
    points = POINTS[0] + np.random.default_rng(1).uniform(-0.4, 0.4, (300, 3))
    z = scores(SamplerV2(), gates(), ["ZZZ"], "ABB", points, shots=256)
    assert z.shape == (300,)
    assert abs(z.mean()) <= 5 / np.sqrt(300)
    assert abs((z**2).mean() - 1) <= 5 * np.sqrt(2 / 300)


def in_hundreds(shots, pub):
    """A device that takes shots by the hundred."""
    return -(-shots // 100) * 100


@pytest.mark.soak
def test_shots_that_were_rounded_up_are_recorded(tmp_path):
    """250 are asked for, in two chunks of 125 each: 200 and 200 are taken."""
    call = gates(), ["ZZZ", "XYX"], "ABB", POINTS[:1, None]
    for chunks, taken in ((1, 300), (2, 400)):
        _, backend = deferring(take=in_hundreds)
        _, plain = deferring()
        policy = Policy(deadline=Deadline(600.0, chunks=chunks))
        with RecordWriter(tmp_path / f"{chunks}.jsonl") as trace:
            result = estimate(backend, *call, shots=250, trace=trace, policy=policy)
        metadata = result.metadata
        assert metadata["shots"] == taken
        assert metadata["shots_total"] == taken * metadata["num_subexperiments"]
        tasks = [r for r in read_records(trace.path) if isinstance(r, TaskRecord)]
        assert {task.shots for task in tasks} == {taken // chunks}
        # As many shots asked for of a device that takes any number: equal but for what the
        # standard errors themselves scatter, some per cent at 300 shots.
        other = estimate(plain, *call, shots=taken).data.stds
        np.testing.assert_allclose(result.data.stds, other, rtol=0.15)


class Counted(Wrapper):
    """Gives shots sorted, as a device that returns counts does."""

    def run(self, pubs, *, shots=None):
        results = super().run(pubs, shots=shots).result()
        for result in results:
            for bits in result.data.values():
                bits.array.sort(axis=-2)
        job = PrimitiveJob(lambda: results)
        job._submit()
        return job


@pytest.mark.parametrize(
    "make",
    [
        lambda: Wrapper(SamplerV2()),
        lambda: Wrapper(StatevectorSampler(seed=np.random.default_rng(1))),
        lambda: Counted(SamplerV2()),
    ],
)
def test_samplers_that_do_not_repeat_themselves_are_taken(make):
    """Four tasks of 100 circuits each; a false alarm has a chance of 10⁻¹³ in each."""
    assert abs(spread_over_claimed(make(), 100) ** 2 - 1) <= 0.7
