"""What samplers do about noise: flips of measured bits, twirled and folded gates, and layouts."""

from __future__ import annotations

import pickle
from collections import Counter

import numpy as np
import pytest
from helpers import entangled
from qiskit import QuantumCircuit
from qiskit.circuit import Measure, Parameter
from qiskit.circuit.library import CXGate, RZGate, SXGate, XGate, iSwapGate
from qiskit.primitives import BackendSamplerV2, PrimitiveJob, StatevectorSampler
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.quantum_info import Operator, Pauli, Statevector
from qiskit.transpiler import CouplingMap, InstructionProperties, Target
from qiskit_aer import AerSimulator
from qiskit_aer.primitives import SamplerV2
from qiskit_ibm_runtime.fake_provider import (
    FakeJakartaV2,
    FakeLagosV2,
    FakeLimaV2,
    FakeManilaV2,
    FakeSherbrooke,
)
from test_sampler import (
    MOST,
    POINTS,
    REPEATING,
    SEEDED,
    Recording,
    assert_close,
    device,
    estimate,
    four_alike,
    gates,
    noise,
    scores,
    wires,
)
from test_tasks import (
    EXPERIMENTS,
    angles_of,
    assert_unbiased,
    experiments_of,
    results_of,
    tasks_of,
    tensor_of,
)

from distributed_estimator import DistributedEstimator, EstimatorOptions, Mitigation
from distributed_estimator.backends import family_pubs, templates
from distributed_estimator.backends.sampler import SamplerBackend
from distributed_estimator.errors import BackendError, InputError

pytestmark = pytest.mark.filterwarnings("ignore:.*has no QubitProperties:UserWarning")

READOUT = Mitigation(readout=True)
TWIRLED = Mitigation(twirling=4)


def mitigated(sampler, mitigation=READOUT, factor=1, **options):
    options = {"defer_measurements": False, **options}
    return SamplerBackend(sampler, **options).mitigated(mitigation, factor)


# --- Without noise nothing changes ----------------------------------------------------------------


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize(
    ("mitigation", "factor"), [(READOUT, 1), (TWIRLED, 1), (Mitigation(), 3), (TWIRLED, 3)]
)
def test_tensors_stay_unbiased(name, mitigation, factor):
    experiment = EXPERIMENTS[name]
    angles = angles_of(experiment)
    backend = mitigated(SamplerV2(), mitigation, factor)
    # Outcomes of a hundredth are seen a few times.
    shots = {"observed": 200, "silent": 1600}[name]
    tasks = tasks_of(experiment, angles, shots, most=backend.circuits_per_task(experiment))
    results = results_of(backend, experiment, tasks)
    assert_unbiased(experiment, angles, tensor_of(experiment, angles, tasks, results))


@pytest.mark.parametrize("make", [gates, wires])
def test_flips_cancel_where_measurements_are_deferred(make):
    labels = "ABB" if make is gates else None
    backend = mitigated(StatevectorSampler(), Mitigation(twirling=4), defer_measurements=True)
    options = {"shots": 256, "setting_basis": "minimal"}
    assert_close(backend, make(), ["ZZZ", "XYX"], labels, POINTS[0], **options)


def test_a_routed_device_stays_unbiased():
    sampler = SamplerV2.from_backend(AerSimulator.from_backend(device()))
    backend = mitigated(sampler, Mitigation(readout=True, twirling=4), 3)
    assert_close(backend, gates(), ["ZZZ"], "ABB", POINTS[0], shots=256, setting_basis="minimal")


# --- Flips ----------------------------------------------------------------------------------------


class Misreading(StatevectorSampler):
    """Reads 1 for 0 with the probability `zero`, and 0 for 1 with `one`."""

    def __init__(self, zero, one):
        super().__init__()
        self.rates = np.array([zero, one])

    def run(self, pubs, *, shots=None):
        results = super().run(pubs, shots=shots).result()
        for result in results:
            for bits in result.data.values():
                read = np.unpackbits(bits.array, axis=-1, bitorder="little")
                assert bits.num_bits <= 8
                read ^= self._seed.random(read.shape) < self.rates[read]
                read[..., bits.num_bits :] = 0
                bits.array[:] = np.packbits(read, axis=-1, bitorder="little")
        job = PrimitiveJob(lambda: results)
        job._submit()
        return job


def ghz(size=3):
    circuit = QuantumCircuit(size)
    circuit.h(0)
    for qubit in range(size - 1):
        circuit.cx(qubit, qubit + 1)
    circuit.ry(0.7, range(size))
    return circuit


def test_flips_make_misreading_zeros_and_ones_alike():
    """With flips a mean of m bits shrinks by (1 - 2e)ᵐ, e = 0.08 being the mean of 0.01 and 0.15.
    Without them each bit of a product state has the mean 0.84 cos a + 0.14."""
    circuit = QuantumCircuit(3)
    for qubit, angle in enumerate([0.4, 0.5, 0.6]):
        circuit.ry(angle, qubit)
    cosines = np.cos([0.4, 0.5, 0.6])
    plain = estimate(Misreading(0.01, 0.15), circuit, "ZZZ", None, shots=40000).data
    flipped = estimate(mitigated(Misreading(0.01, 0.15)), circuit, "ZZZ", None, shots=40000).data
    assert abs(plain.evs - (0.84 * cosines + 0.14).prod()) <= MOST * plain.stds
    assert abs(flipped.evs - (0.84 * cosines).prod()) <= MOST * flipped.stds
    assert abs(plain.evs - flipped.evs) > 10 * flipped.stds


def test_errors_of_flipped_bits_are_as_said():
    """Copies have unlike means; flips in half of them cancel that. Mean z² of 60 is 1 within
    √(2/60) = 0.18, of which 0.9 is five. Were flips drawn for each of 10 copies by itself, four
    bits would add a scatter of 0.14 · 0.8³ · √4 / √10 = 0.045 to that of 1000 shots, 0.03:
    mean z² would be 3."""
    x = Parameter("x")
    circuit = QuantumCircuit(4)
    circuit.ry(x, range(4))
    circuit.cz([0, 1, 2], [1, 2, 3])  # one fragment, with the values of bits by themselves
    points = np.linspace(0.3, 0.5, 60)
    backend = mitigated(Misreading(0.01, 0.15), circuits_per_job=10**5)
    data = estimate(backend, circuit, "ZZZZ", None, points[:, None], shots=1000).data
    z = (data.evs - (0.84 * np.cos(points)) ** 4) / data.stds
    assert abs((z**2).mean() - 1) <= 0.9


def test_errors_of_products_of_unlike_bits_are_as_said():
    """Flips in half of 16 copies, drawn for each bit by itself, leave means of products of two bits
    a scatter of 0.4² / √15 = 0.041 beside that of 1600 shots, 1 / √1600 = 0.025: mean z² would be
    3.7. Mean z² of 60 is 1 within √(2/60) = 0.18, of which 0.9 is five."""
    x = Parameter("x")
    circuit = QuantumCircuit(2)
    circuit.ry(x, range(2))
    circuit.cz(0, 1)
    points = np.linspace(0.7, 0.9, 60)
    backend = mitigated(Misreading(0.0, 0.4), circuits_per_job=10**5)
    data = estimate(backend, circuit, "ZZ", None, points[:, None], shots=1600).data
    z = (data.evs - (0.6 * np.cos(points)) ** 2) / data.stds
    assert abs((z**2).mean() - 1) <= 0.9


@pytest.mark.soak
@pytest.mark.parametrize("shots", [7, 23, 37])
def test_shots_that_copies_do_not_divide_have_the_errors_they_say(shots):
    """The root mean square of 800 errors is as said within 1/√1600 = 0.025; their mean is none."""
    x = Parameter("x")
    circuit = QuantumCircuit(4)
    circuit.ry(x, range(4))
    circuit.cz([0, 1, 2], [1, 2, 3])  # one fragment, with the values of bits by themselves
    points = np.linspace(0.3, 0.5, 800)
    backend = mitigated(Misreading(0.01, 0.15), circuits_per_job=10**5)
    data = estimate(backend, circuit, "ZZZZ", None, points[:, None], shots=shots).data
    errors = data.evs - (0.84 * np.cos(points)) ** 4
    assert abs(errors.mean()) <= 5 * errors.std() / np.sqrt(800)
    assert 0.88 <= errors.std() / np.sqrt((data.stds**2).mean()) <= 1.12


@pytest.mark.parametrize(("bits", "strength"), [(3, 3), (8, 3), (9, 2), (15, 2), (40, 1)])
def test_flips_are_rows_of_an_orthogonal_array(bits, strength):
    """Of so many bits, each combination is flipped in as many of the 16 copies as any other."""
    signs = 1 - 2 * family_pubs.balanced_flips(200, 16, bits, np.random.default_rng(1)).astype(int)
    assert signs.shape == (200, 16, bits)
    chosen = np.random.default_rng(2)
    for size in range(1, strength + 1):
        for _ in range(10):
            places = chosen.choice(bits, size, replace=False)
            assert not signs[..., places].prod(axis=-1).sum(axis=1).any()


@pytest.mark.parametrize(("copies", "bits"), [(1, 1), (2, 3), (4, 3), (16, 3), (16, 20)])
def test_bits_of_each_copy_are_independent(copies, bits):
    """Means of 4000 signs, each ±1, are 0 within five of 1/√4000."""
    found = family_pubs.balanced_flips(4000, copies, bits, np.random.default_rng(1))
    signs = 1.0 - 2.0 * found
    for places in ([0], [0, bits - 1], list(range(bits))):
        product = signs[..., sorted(set(places))].prod(axis=-1)
        assert (np.abs(product.mean(axis=0)) <= 5 / np.sqrt(4000)).all()


@pytest.mark.parametrize("most", [1, 2, 4, 16, 32])
def test_copies_share_shots(most):
    for shots in (*range(1, 300), 997, 1000, 1001, 4096):
        found = family_pubs.copies_of(shots, most)
        assert sum(n * own for n, own in found) == shots
        assert sum(n for n, _ in found) == min(shots, most)
        assert len(found) == (1 if shots % most == 0 or shots < most else 2)


@pytest.mark.parametrize("twirling", [None, 16])
def test_copies_take_the_shots_that_were_asked_for(twirling):
    """Of a number that the number of copies does not divide, too."""
    sampler = Recording()
    backend = mitigated(sampler, Mitigation(readout=True, twirling=twirling))
    result = estimate(backend, ghz(), "ZZZ", None, shots=1003)
    assert result.metadata["shots_total"] == 1003
    (pubs,) = sampler.jobs
    assert sum(int(np.prod(pub.shape)) * pub.shots for pub in pubs) == 1003
    assert sum(int(np.prod(pub.shape)) for pub in pubs) == 16
    exact = Statevector(ghz()).expectation_value(Pauli("ZZZ")).real
    assert abs(result.data.evs - exact) <= MOST * result.data.stds


def test_a_budget_is_a_limit_where_circuits_have_copies():
    for total in (1500, 4001):
        backend = mitigated(SamplerV2(), Mitigation(twirling=16))
        for allocation in ("uniform", "optimal"):
            options = {"shots": None, "shots_total": total, "allocation": allocation}
            result = estimate(backend, ghz(), "ZZZ", "AAB", **options)
            assert 0.9 * total <= result.metadata["shots_total"] <= total


def test_copies_of_a_circuit_are_bindings_of_one():
    sampler = Recording()
    estimate(mitigated(sampler), ghz(), "ZZZ", None, shots=160)
    ((pub,),) = sampler.jobs
    assert (pub.shape, pub.shots) == ((16,), 10)
    plain = Recording()
    estimate(SamplerBackend(plain), ghz(), "ZZZ", None, shots=160)
    assert plain.jobs[0][0].circuit.count_ops()["cx"] == pub.circuit.count_ops()["cx"]


def test_gates_are_twirled_where_a_number_is_given():
    """Eight circuits, that are not all the same; without two-qubit gates they would be one."""
    sampler = Recording()
    backend = mitigated(sampler, Mitigation(readout=True, twirling=10))
    estimate(backend, ghz(), "ZZZ", None, shots=80)
    (pubs,) = sampler.jobs
    assert [(pub.shape, pub.shots) for pub in pubs] == [((1,), 10)] * 8
    assert len({str(pub.circuit.draw()) for pub in pubs}) > 1


def test_fewer_shots_than_copies():
    sampler = Recording()
    estimate(mitigated(sampler), ghz(), "ZZZ", None, shots=7)
    ((pub,),) = sampler.jobs
    assert (pub.shape, pub.shots) == ((7,), 1)


def test_copies_count_as_circuits_of_a_job():
    experiment = EXPERIMENTS["observed"]
    backend = mitigated(StatevectorSampler(), Mitigation(twirling=16), circuits_per_job=64)
    assert backend.circuits_per_task(experiment) == 4
    plain = SamplerBackend(StatevectorSampler(), circuits_per_job=64)
    assert plain.circuits_per_task(experiment) == 64


@pytest.mark.filterwarnings("ignore:The SamplerV2 class is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", REPEATING)
def test_samplers_that_repeat_themselves_are_refused_with_flips(name):
    backend = mitigated(REPEATING[name]())
    with pytest.raises(BackendError, match="same random numbers"):
        estimate(backend, four_alike(), "ZZZZ", "ABCD", [0.6], shots=512)


@pytest.mark.filterwarnings("ignore:The SamplerV2 class is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", SEEDED)
def test_circuits_of_one_job_are_independent(name):
    """Eight copies, a circuit each, with gates that are twirled otherwise and do the same.

    Were two of them drawn from the same numbers, that would be found out and refused.
    """
    circuit = QuantumCircuit(2)
    circuit.ry(1.0, 0)
    circuit.cx(0, 1)
    backend = mitigated(SEEDED[name](), Mitigation(twirling=8))
    assert_close(backend, circuit, "XX", None, shots=4000)


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore:The SamplerV2 class is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "flips"),
    [*((name, False) for name in SEEDED), ("own statevector", True), ("own aer", True)],
)
def test_errors_of_samplers_with_own_seeds_are_as_said(name, flips):
    """The root mean square of 1000 z is 1 within 1/√2000 = 0.022, of which 0.1 is more than four.

    Repeated numbers give 2.05.
    """
    points = np.linspace(0.5, 0.7, 1000)
    sampler = SEEDED[name]()
    backend = mitigated(sampler) if flips else sampler
    z = scores(backend, four_alike(), "ZZZZ", "ABCD", points[:, None], shots=500)
    assert 0.9 <= np.sqrt((z**2).mean()) <= 1.1


# --- Folding --------------------------------------------------------------------------------------


def test_gates_run_as_often_as_asked_and_do_the_same():
    experiment, angles = EXPERIMENTS["observed"], angles_of(EXPERIMENTS["observed"])
    family = experiment.layout.families[0]
    target = GenericBackendV2(3, coupling_map=CouplingMap.from_line(3), seed=1).target
    template = templates.make_template(experiment, family, target, defer=False, purify=False)
    circuits = np.zeros((3, 1), dtype=int)
    found = []
    for factor in (1, 3, 5):
        folded = template.folded(factor, target)
        count = template.circuit.count_ops()["cx"]
        assert folded.circuit.count_ops()["cx"] == factor * count
        bound = folded.circuit.assign_parameters(folded.bind(angles, circuits)[0])
        found.append(Operator(bound.remove_final_measurements(inplace=False)))
        assert folded.measured == template.measured
    assert found[0].equiv(found[1])
    assert found[0].equiv(found[2])


def test_symbolic_gates_are_folded():
    """RZZ of an angle that is bound later, on a simulator that has such gates."""
    x = Parameter("x")
    circuit = ghz()
    circuit.rzz(2 * x + 0.1, 0, 1)
    circuit.rx(0.8, range(3))
    sampler = Recording()
    backend = mitigated(sampler, Mitigation(), 3)
    estimate(backend, circuit, "ZZZ", None, [0.4], shots=10)
    ((pub,),) = sampler.jobs
    assert pub.circuit.count_ops()["rzz"] == 3
    assert_close(mitigated(SamplerV2(), Mitigation(), 3), circuit, ["ZZZ"], None, [0.4])


def test_noise_is_amplified():
    """One cx depolarised by p: ⟨ZZ⟩ is 1 - p, and (1 - p)³ at thrice the noise."""
    circuit = QuantumCircuit(2)
    circuit.x(0)
    circuit.cx(0, 1)
    for factor in (1, 3, 5):
        sampler = SamplerV2(options={"backend_options": {"noise_model": noise(0.2)}})
        backend = mitigated(sampler, Mitigation(), factor)
        data = estimate(backend, circuit, "ZZ", None, shots=20000).data
        assert abs(data.evs - 0.8**factor) <= MOST * data.stds


class Line:
    """A line of qubits as a device would say of itself."""

    def __init__(self, size, gate=None, readout=None, broken=()):
        qubits = [qubit for qubit in range(size) if qubit not in broken]
        self.name, self.num_qubits, self.options = "line", size, None
        self.target = Target(num_qubits=size)
        for instruction, error in (
            (RZGate(Parameter("t")), dict.fromkeys(qubits, 0.0)),
            (SXGate(), dict.fromkeys(qubits, 3e-4)),
            (XGate(), dict.fromkeys(qubits, 3e-4)),
            (Measure(), {q: (readout or {}).get(q, 0.02) for q in qubits}),
        ):
            own = {(q,): InstructionProperties(error=e) for q, e in error.items()}
            self.target.add_instruction(instruction, own)
        pairs = [(a, b) for a in qubits for b in qubits if abs(a - b) == 1]
        self.target.add_instruction(
            gate or CXGate(), {pair: InstructionProperties(error=0.01) for pair in pairs}
        )


class OnDevice(Recording):
    def __init__(self, device, **options):
        super().__init__(**options)
        self._device = device

    def backend(self):
        return self._device


def test_gates_without_an_inverse_on_the_device_are_refused():
    backend = mitigated(OnDevice(Line(3, iSwapGate())), Mitigation(), 3)
    message = r"`iswap` on qubits \d, \d cannot be run several times .* leave `zne` out"
    with pytest.raises(BackendError, match=message):
        estimate(backend, ghz(), "ZZZ", None, shots=10)


@pytest.mark.parametrize("factor", [0, 2, -1, 1.5, True])
def test_factors_that_no_folding_gives_are_refused(factor):
    with pytest.raises(InputError, match="`factor` is"):
        mitigated(SamplerV2(), READOUT, factor)


# --- Layouts and templates ------------------------------------------------------------------------


def ring(size=4):
    """A ring that is cut off the rest, so that it is routed; with a slot."""
    circuit = entangled(size + 1, 3, layers=1)
    circuit.cx(0, size - 1)
    return circuit


def templates_of(backend, experiment):
    return [
        backend._template(experiment, family)
        for family in experiment.layout.families
        if experiment.runs(family)
    ]


def assert_one_patch(sampler, size):
    backend = mitigated(sampler, Mitigation())
    (experiment,) = [
        e
        for e in experiments_of(ring(size), "A" * size + "B", ["Z" * (size + 1)])
        if e.fragment.num_qubits == size
    ]
    found = templates_of(backend, experiment)
    assert len(found) == 2
    assert len({template.layout for template in found}) == 1
    for template in found:
        at_the_end = template.measured[-size:]
        assert len(set(at_the_end)) == size


def test_families_are_laid_out_on_the_same_qubits():
    assert_one_patch(SamplerV2.from_backend(FakeManilaV2()), 4)


@pytest.mark.soak
def test_families_are_laid_out_on_the_same_qubits_of_a_large_device():
    assert_one_patch(BackendSamplerV2(backend=FakeSherbrooke()), 4)


def test_measured_bits_know_their_qubits():
    """A device that reads 1 on one qubit alone, whatever was prepared, shows which it was."""
    experiment = EXPERIMENTS["observed"]
    target = GenericBackendV2(4, coupling_map=CouplingMap.from_line(4), seed=1).target
    for family in experiment.layout.families:
        found = templates.make_template(experiment, family, target, defer=False, purify=False)
        count = sum(family.measured)
        assert len(found.measured) == count + len(found.observed)
        registers = {register.name: register for register in found.circuit.cregs}
        for place, qubit in enumerate(found.measured):
            name, bit = ("slots", place) if place < count else ("observed", place - count)
            (measurement,) = [
                item
                for item in found.circuit.data
                if item.operation.name == "measure" and item.clbits == (registers[name][bit],)
            ]
            assert found.circuit.find_bit(measurement.qubits[0]).index == qubit


@pytest.mark.parametrize("bad", [0, 1])
def test_qubits_that_are_misread_are_not_taken(bad):
    """Two qubits fit a line of four as they are numbered; they go where the errors are least."""
    (experiment,) = experiments_of(ghz(2), None, ["ZZ"])
    backend = SamplerBackend(OnDevice(Line(4, readout={bad: 0.46})))
    (template,) = templates_of(backend, experiment)
    assert bad not in template.measured


def test_the_worst_qubit_of_lagos_is_not_taken():
    for size in (1, 2, 3):
        (experiment,) = experiments_of(ghz(size), None, ["Z" * size])
        backend = SamplerBackend(BackendSamplerV2(backend=FakeLagosV2()))
        (template,) = templates_of(backend, experiment)
        assert 2 not in template.measured


def test_qubits_that_do_not_work_are_not_taken():
    (experiment,) = experiments_of(ghz(2), None, ["ZZ"])
    (template,) = templates_of(SamplerBackend(OnDevice(Line(4, broken={1}))), experiment)
    assert set(template.measured) == {2, 3}


@pytest.mark.parametrize(
    ("left", "lacking"), [(["rz", "sx", "x", "cx"], '"measure"'), (["cx", "measure"], '"ry"')]
)
def test_instructions_that_a_device_lacks_are_named(left, lacking):
    line = Line(3)
    whole, line.target = line.target, Target(num_qubits=3)
    for name in left:
        line.target.add_instruction(whole.operation_from_name(name), dict(whole[name]))
    message = rf"cannot be transpiled to line: .*{lacking}.*another device where it lacks an instru"
    with pytest.raises(BackendError, match=message):
        estimate(SamplerBackend(OnDevice(line)), ghz(2), "ZZ", None, shots=10)


@pytest.mark.parametrize("mitigation", [Mitigation(), READOUT])
def test_too_few_qubits_that_work_are_refused(mitigation):
    backend = mitigated(OnDevice(Line(5, broken={2})), mitigation)
    message = r"fragment 0 \(3 qubits\) cannot be transpiled to line: .*Cut more where its qubits"
    with pytest.raises(BackendError, match=message):
        estimate(backend, ghz(3), "ZZZ", None, shots=10)
    (experiment,) = experiments_of(ghz(3), None, ["ZZZ"])
    with pytest.raises(BackendError, match=message):
        backend.readout(experiment)


@pytest.fixture
def transpiled(monkeypatch):
    """Counts calls of the transpiler for templates."""
    calls = Counter()
    make = templates.generate_preset_pass_manager

    def counting(*args, **options):
        calls["all"] += 1
        return make(*args, **options)

    monkeypatch.setattr(templates, "generate_preset_pass_manager", counting)
    return calls


def test_each_template_is_transpiled_once_for_all_runs_and_factors(transpiled):
    backend = SamplerBackend(SamplerV2.from_backend(AerSimulator.from_backend(device())))
    options = EstimatorOptions(shots=2, seed=1, setting_basis="minimal")
    experiments = experiments_of(gates(), "ABB", ["ZZZ"], "minimal")
    families = sum(len(own.layout.families) for own in experiments)
    for factor in (1, 3, 5):
        own = backend.mitigated(Mitigation(readout=True, calibration_shots=50), factor)
        estimator = DistributedEstimator("ABB", own, workers=2, options=options)
        for point in POINTS[:2]:
            estimator.run([(gates(), "ZZZ", point)]).result()
        for experiment in experiments:
            own.readout(experiment)
    assert transpiled["all"] == families


# --- The backend ----------------------------------------------------------------------------------


def test_what_changes_results_changes_the_identity():
    backend = SamplerBackend(SamplerV2(), defer_measurements=False)
    kinds = [
        (READOUT, 1),
        (READOUT, 3),
        (Mitigation(twirling=4), 1),
        (Mitigation(twirling=16), 1),
        (Mitigation(), 3),
    ]
    found = {backend.mitigated(*kind).identity for kind in kinds}
    assert len(found | {backend.identity}) == 1 + len(kinds)
    for same in (Mitigation(), Mitigation(twirling=0), Mitigation(readout=True, twirling=0)):
        assert backend.mitigated(same).identity == backend.identity
    one = backend.mitigated(READOUT, 3)
    copy = pickle.loads(pickle.dumps(one))
    assert copy.identity == one.identity
    experiment = EXPERIMENTS["observed"]
    (task,) = tasks_of(experiment, angles_of(experiment), 32)
    first, second = (own.run(experiment, task).counts for own in (one, copy))
    assert all((a == b).all() for a, b in zip(first, second, strict=True))


def test_readout_of_deferred_measurements_is_refused():
    with pytest.raises(InputError, match=r"deferred to ancilla.*defer_measurements=False"):
        SamplerBackend(SamplerV2()).mitigated(READOUT)
    SamplerBackend(SamplerV2()).mitigated(Mitigation(twirling=4))


def test_a_sampler_that_refuses_measurements_inside_a_circuit_says_so():
    backend = mitigated(StatevectorSampler())
    with pytest.raises(BackendError, match="defer_measurements=True"):
        estimate(backend, gates(), "ZZZ", "ABB", POINTS[0], setting_basis="minimal")


def test_limits_of_devices_are_read_from_their_configuration():
    backend = SamplerBackend(BackendSamplerV2(backend=FakeManilaV2()))
    assert (backend.shots_per_circuit, backend.circuits_per_job) == (100000, 300)
    backend = SamplerBackend(
        BackendSamplerV2(backend=FakeManilaV2()), circuits_per_job=50, shots_per_circuit=10
    )
    assert (backend.shots_per_circuit, backend.circuits_per_job) == (10, 50)
    assert SamplerBackend(SamplerV2()).shots_per_circuit is None
    assert SamplerBackend(SamplerV2()).circuits_per_job == 512


# --- Devices --------------------------------------------------------------------------------------


def chained(size, seed):
    """A chain whose ⟨Z…Z⟩ is 0.3 at least, so that there is something to lose."""
    rng = np.random.default_rng(seed)
    circuit = QuantumCircuit(size)
    for layer in range(2):
        for qubit in range(size):
            circuit.ry(rng.uniform(-0.5, 0.5), qubit)
        for qubit in range(size - 1 if layer == 0 else 0):
            circuit.cx(qubit, qubit + 1)
    return circuit


def errors_on(device, labels, seed, shots):
    """Errors of a value without and with mitigated readout, and standard error of the latter."""
    circuit, observable = chained(len(labels), seed), "Z" * len(labels)
    exact = float(
        DistributedEstimator(labels).run([(circuit, observable)], precision=0).result()[0].data.evs
    )
    assert abs(exact) >= 0.3
    sampler = SamplerV2.from_backend(device)
    options = {"shots": shots, "seed": seed, "setting_basis": "minimal"}
    plain = estimate(sampler, circuit, observable, labels, **options).data
    better = estimate(sampler, circuit, observable, labels, mitigation=READOUT, **options).data
    return plain.evs - exact, better.evs - exact, better.stds


def test_mitigated_readout_is_better_on_a_device():
    """Three qubits of Manila, one of them misread by 0.1, shrink ⟨ZZZ⟩ by 0.81 · 0.96² = 0.75."""
    plain, better, stderr = errors_on(FakeManilaV2(), "AAABBB", 2, 1000)
    assert abs(plain) >= 2 * abs(better)
    assert stderr < abs(plain) / 4


@pytest.mark.soak
@pytest.mark.parametrize(
    ("device", "labels"),
    [
        (FakeManilaV2, "AAABBB"),
        (FakeManilaV2, "AABBCC"),
        (FakeLimaV2, "AAAABBBB"),
        (FakeJakartaV2, "AAABBBCC"),
    ],
)
def test_mitigated_readout_is_better_on_devices(device, labels):
    """What is left are errors of gates and the noise of shots, a tenth of readout's."""
    found = np.array([errors_on(device(), labels, seed, 4000) for seed in (2, 3)])
    plain, better, _ = np.sqrt((found**2).mean(axis=0))
    assert plain >= 2 * better
