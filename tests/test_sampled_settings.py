"""Settings that are drawn at random: unbiased, with honest errors, and no others run."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
from helpers import reference
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp
from qiskit_aer.primitives import SamplerV2

from distributed_estimator import CutAt, DistributedEstimator, EstimatorOptions, FragmentGradient
from distributed_estimator.backends.statevector import StatevectorBackend
from distributed_estimator.cutting import CutPlan
from distributed_estimator.errors import InputError, PlanTooLargeError
from distributed_estimator.reconstruction import FragmentTensor
from distributed_estimator.records import decode
from distributed_estimator.subexperiments import (
    DrawnExperiment,
    DrawnSettings,
    FragmentExperiment,
    Sensitivity,
    SlotDraw,
    drawn_together,
    make_tasks,
    slot_draws,
)

LABELS = "ABCDEFGHIJ"


def star(ends, parameters=(), seed=1):
    """A hub, qubit 0, with a CZ to each of several leaves; parameters turn the hub and a leaf."""
    rng = np.random.default_rng(seed)
    circuit = QuantumCircuit(ends + 1)
    for qubit in range(ends + 1):
        circuit.ry(rng.uniform(0, np.pi), qubit)
        circuit.rz(rng.uniform(0, 2 * np.pi), qubit)
    for leaf in range(1, ends + 1):
        circuit.cz(0, leaf)
    for parameter, qubit in zip(parameters, (0, 1), strict=False):
        circuit.ry(parameter, qubit)
    for qubit in range(ends + 1):
        circuit.ry(rng.uniform(0, np.pi), qubit)
    return circuit


def run(ends, observable=None, backend=None, pool="threads", run_options=None, **options):
    """The result of one query on a star, cut into its qubits."""
    observable = SparsePauliOp(observable or "Z" * (ends + 1))
    with DistributedEstimator(
        cuts=LABELS[: ends + 1],
        backend=backend,
        pool=pool,
        workers=2,
        options=EstimatorOptions(**options),
    ) as estimator:
        (result,) = estimator.run([(star(ends), observable)], **(run_options or {})).result()
    return result


def error_of(result, ends, observable=None):
    """In standard errors."""
    exact = reference(star(ends), SparsePauliOp(observable or "Z" * (ends + 1)))
    return float((result.data.evs - exact) / result.data.stds)


def ring(loops):
    """Three qubits and a gate that closes the ring after every layer but the last; those gates."""
    rng, circuit, closing = np.random.default_rng(loops), QuantumCircuit(3), []
    for layer in range(loops + 1):
        for qubit in range(3):
            circuit.ry(rng.uniform(0, np.pi), qubit)
            circuit.rz(rng.uniform(0, 2 * np.pi), qubit)
        circuit.cx(0, 1)
        circuit.cx(1, 2)
        if layer < loops:
            closing.append(len(circuit.data))
            circuit.cx(2, 0)
    return circuit, closing


def crossing():
    """A qubit between two others: two cuts have both ends here, a third one its first end."""
    circuit = QuantumCircuit(3)
    for qubit in range(3):
        circuit.ry(0.4 + qubit, qubit)
    circuit.cx(0, 1)
    circuit.cx(0, 2)
    for qubit in range(2):
        circuit.rx(0.3 + qubit, qubit)
    circuit.cx(1, 0)
    circuit.ry(0.8, 0)
    circuit.rx(0.5, 1)
    circuit.cz(0, 1)
    circuit.ry(0.9, 0)
    return CutPlan.build(circuit, CutAt([3, 4, 7]))


@cache
def drawn_tensor(case, shots=200, rows=1000):
    """Independent estimates of one fragment's tensor, its exact values, and an environment."""
    plan = crossing() if case == "loops" else CutPlan.build(star(3), "ABCD")
    fragment, pauli = plan.fragments[0], () if case == "unmeasured" else ((0, "Z"),)
    bases = [slot.side.basis("full") for slot in fragment.slots]
    environment = np.random.default_rng(8).normal(size=(1, np.prod(fragment.shape)))
    groups = drawn_together(fragment, plan.cuts)
    slots = slot_draws(groups, bases, environment[None, None])
    drawn = DrawnSettings.draw(bases, slots, np.full((rows, 1), shots), "test")
    experiment = DrawnExperiment(fragment, (pauli,), "full", drawn)
    angles, limits = np.zeros((rows, len(fragment.angles))), {"rows_per_task": 100}
    limits |= {"circuits_per_task": None, "chunks": 1}
    tasks = list(make_tasks(0, experiment, angles, drawn.shots, "test", **limits))
    tensor = FragmentTensor(experiment, rows, tasks)
    for task in tasks:
        tensor.add(task, StatevectorBackend().run(experiment, task))
    every = FragmentExperiment(fragment, (pauli,), "full")
    (exactly,) = make_tasks(0, every, angles[:1], None, "exact", **limits)
    exact = StatevectorBackend().run(every, exactly).values[0, 0]
    return tensor, exact, environment


@pytest.mark.parametrize("case", ["measured", "unmeasured", "loops"])
def test_drawn_tensors_are_unbiased(case):
    """Of 1024 coordinates, none is 5 standard errors off in more than one of 1,500 such tests."""
    tensor, exact, _ = drawn_tensor(case)
    values = tensor.values[:, 0]
    spread = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    assert (np.abs(values.mean(axis=0) - exact) <= 5 * spread + 1e-12).all()


@pytest.mark.parametrize("case", ["measured", "unmeasured", "loops"])
def test_variances_of_drawn_tensors_are_right(case):
    """The variance of 1000 values is known to 4.5 %, and coverage to 0.7 %: four times that."""
    tensor, exact, environment = drawn_tensor(case)
    rows = np.arange(len(tensor.values))
    every = Sensitivity(rows, rows, np.repeat(environment[None, None], len(rows), axis=1))
    variances = tensor.variances(every)
    errors = (tensor.values[:, 0] - exact) @ environment[0]
    assert variances.mean() == pytest.approx(errors.var(), rel=0.18)
    assert np.mean(np.abs(errors) <= 1.96 * np.sqrt(variances)) == pytest.approx(0.95, abs=0.028)


def test_covariances_are_the_variances_where_results_are_the_same():
    tensor, _, environment = drawn_tensor("measured")
    twice = Sensitivity(np.zeros(2, int), np.arange(2), np.stack([environment, environment])[None])
    total = np.zeros((2, 2))
    tensor.add_covariances(total, twice)
    np.testing.assert_allclose(total, tensor.variances(twice)[0])


def test_a_slot_that_needs_one_operation_draws_it():
    """The value of the identity alone has a mean square of one, whatever the state."""
    side = CutPlan.build(star(1), "AB").cuts[0].sides[0]
    basis = side.basis("full")
    slot = SlotDraw.best((0,), [basis], np.outer(basis.outcomes[0], basis.outcomes[0]))
    assert basis.operations[int(slot.chances.argmax())].name == "I"
    assert slot.chances.max() > 0.97
    np.testing.assert_allclose(slot.weights @ basis.outcomes, np.eye(4), atol=1e-9)


@pytest.mark.parametrize(("gate", "overhead"), [("cx", 9), ("iswap", 49), ("swap", 49)])
def test_the_ends_of_a_loop_are_drawn_like_terms(gate, overhead):
    """The least mean square of a shot is γ², that of the best quasi-probability decomposition."""
    circuit = QuantumCircuit(2)
    getattr(circuit, gate)(0, 1)
    circuit.cz(0, 1)
    plan = CutPlan.build(circuit, CutAt([0]))
    (cut,) = plan.cuts
    bases = [side.basis("full") for side in cut.sides]
    core = cut.cores(np.zeros((1, 0))).ravel()
    slot = SlotDraw.best((0, 1), bases, np.outer(core, core))
    rows = np.kron(bases[0].outcomes, bases[1].outcomes)
    np.testing.assert_allclose(slot.weights @ rows, np.eye(len(core)), atol=1e-7)
    widths = [[len(operation.rotations) for operation in basis.operations] for basis in bases]
    own = [np.repeat(np.arange(len(width)), width) for width in widths]
    of = np.add.outer(own[0] * len(widths[1]), own[1]).ravel()
    squares = (core @ slot.weights) ** 2 / np.outer(*map(np.array, widths)).ravel()[of]
    assert (np.bincount(of, squares) / slot.chances).sum() == pytest.approx(overhead, rel=0.05)


def test_loops_take_the_shots_of_terms():
    """Three loops have γ² = 729: 72,900 shots. With each end by itself they took 2,290,000."""
    circuit, closing = ring(3)
    observable = SparsePauliOp("ZZZ")
    with DistributedEstimator(CutAt(closing), options=EstimatorOptions(seed=3)) as estimator:
        (result,) = estimator.run([(circuit, observable)], precision=0.1).result()
    assert result.record.design.drawn == (0,)
    assert result.metadata["shots_total"] < 150_000
    assert result.data.stds <= 0.1
    assert abs(result.data.evs - reference(circuit, observable)) < 4.5 * result.data.stds


@pytest.mark.parametrize("kind", ["full", "minimal"])
@pytest.mark.parametrize(("observable", "ends"), [(None, 6), ("ZXZXZXZ", 6), ("ZZZZZZI", 6)])
def test_meets_the_precision(kind, observable, ends):
    """The third one observes nothing at the hub."""
    result = run(ends, observable, setting_basis=kind, seed=3, run_options={"precision": 0.05})
    assert result.data.stds <= 0.05
    assert abs(error_of(result, ends, observable)) < 4.5
    assert result.record.design.drawn == (0,)
    if kind == "full":  # running each of 15,625 settings takes 6 shots of each
        assert result.metadata["shots_total"] < 60_000


def test_wide_hubs_run_within_a_budget():
    """9 ends have 1,953,125 settings, and were refused."""
    result = run(9, seed=4, shots_total=20_000)
    assert result.metadata["shots_total"] <= 20_000
    assert result.data.stds < 0.2
    assert abs(error_of(result, 9)) < 4.5


def test_wide_fragments_may_depend_on_each_other():
    """Two of five qubits with a gate between each pair: what is not known has 1024 dimensions."""
    rng = np.random.default_rng(4)
    circuit, observable = QuantumCircuit(10), SparsePauliOp("Z" * 10)
    for layer in range(2):
        for qubit in range(10):
            circuit.ry(rng.uniform(0, np.pi), qubit)
            circuit.rz(rng.uniform(0, 6), qubit)
        for qubit in range(4):
            circuit.cx(qubit, qubit + 1)
            circuit.cx(qubit + 5, qubit + 6)
        for qubit in range(5 * (layer == 0)):
            circuit.cz(qubit, qubit + 5)
    with DistributedEstimator("AAAAABBBBB", options=EstimatorOptions(seed=1)) as estimator:
        (result,) = estimator.run([(circuit, observable)], precision=0.05).result()
    assert result.record.design.drawn == (0, 1)
    assert result.data.stds <= 0.05
    assert abs(result.data.evs - reference(circuit, observable)) < 4.5 * result.data.stds


def test_sums_of_terms_share_measurement_groups():
    observable = SparsePauliOp(["ZZZZZI", "XIZZIZ", "YYIIIX", "ZZZZZZ"], [0.3, 0.5, 0.4, 0.2])
    result = run(5, observable, seed=1, run_options={"precision": 0.05})
    assert result.data.stds <= 0.05
    assert abs(error_of(result, 5, observable)) < 4.5


def test_values_that_depend_little_on_a_fragment_have_right_errors():
    """What they need was hardly drawn: errors were 16 times those claimed, or shots 60 times."""
    rng, circuit = np.random.default_rng(0), QuantumCircuit(7)
    for qubit in range(7):
        circuit.ry(rng.uniform(-1, 1), qubit)
    for leaf in range(1, 7):
        circuit.cx(0, leaf)
        circuit.rx(rng.uniform(-1, 1), 0)
    observables = ["Z" * 7, "XIIIIII", "IIIIIIZ"]
    exact = [reference(circuit, SparsePauliOp(own)) for own in observables]
    for seed in range(1005, 1010):
        with DistributedEstimator(LABELS[:7], options=EstimatorOptions(seed=seed)) as estimator:
            (result,) = estimator.run([(circuit, observables)], precision=0.05).result()
        assert (result.data.stds <= 0.05).all()
        assert (np.abs(result.data.evs - exact) < 4.5 * result.data.stds).all()
        assert result.metadata["shots_total"] < 100_000


def test_precisions_that_are_larger_than_any_error():
    """With millionths of a shot, matrices had no inverse."""
    circuit = QuantumCircuit(6)
    for qubit, (y, z) in enumerate(
        [(-0.8, -0.1), (-2.4, 0.4), (-0.7, -1.5), (0.1, -2.1), (0.1, -0.2), (1.6, -1.0)]
    ):
        circuit.ry(y, qubit)
        circuit.rz(z, qubit)
    circuit.cx(0, 1)
    circuit.rx(-0.1, 0)
    circuit.crx(0.5, 0, 2)
    circuit.rx(-0.2, 0)
    circuit.rzz(0.1, 0, 3)
    circuit.cx(4, 0)
    circuit.rx(0.7, 0)
    circuit.cx(0, 5)
    circuit.ry(0.9, 1)
    circuit.ry(-2.4, 3)
    observable = SparsePauliOp("YYIYXY", 1e-6)
    with DistributedEstimator("ABBBBB", options=EstimatorOptions(seed=883629044)) as estimator:
        (result,) = estimator.run([(circuit, observable)], precision=0.058).result()
    exact = reference(circuit, observable)
    assert abs(result.data.evs - exact) < 4.5 * result.data.stds < 1e-4


def test_gradients_meet_the_precision():
    parameters = ParameterVector("t", 2)
    circuit, observable = star(5, parameters), SparsePauliOp("Z" * 6)
    values = np.array([0.4, 1.1])
    with DistributedEstimator(cuts="ABCDEF", options=EstimatorOptions(seed=2)) as estimator:
        gradient = FragmentGradient(estimator)
        result = gradient.run([circuit], [observable], [values], precision=0.05).result()
    shifts = np.eye(2) * np.pi / 2
    exact = [
        (reference(circuit, observable, values + s) - reference(circuit, observable, values - s))
        / 2
        for s in shifts
    ]
    stderrs = result.metadata[0]["stderrs"]
    assert (stderrs <= 0.05).all()
    assert (np.abs(result.gradients[0] - np.ravel(exact)) < 4.5 * stderrs).all()


def test_nothing_asked_takes_no_shots():
    """No bindings, or no parameters to differentiate by."""
    parameters = ParameterVector("p", 2)
    pub, own = (star(5, parameters), "Z" * 6), EstimatorOptions(seed=1)
    with DistributedEstimator(cuts=LABELS[:6], options=own) as estimator:
        for accuracy in ({"precision": 0.1}, {"shots_total": 50_000}):
            (result,) = estimator.run([(*pub, np.zeros((0, 2)))], **accuracy).result()
            assert result.data.evs.shape == result.data.stds.shape == (0,)
        gradient = FragmentGradient(estimator)
        _, found = gradient.values_and_gradients((*pub, [0.1, 0.2]), [], shots_total=50_000)
        assert found.shape == (0,)


class Counting(SamplerV2):
    """Aer's sampler, which counts circuits and shots."""

    circuits = shots = 0

    def run(self, pubs, *, shots=None):
        for _, values, own in pubs:
            count = 1 if values is None else len(values)
            Counting.circuits += count
            Counting.shots += count * own
        return super().run(pubs, shots=shots)


def test_only_settings_that_were_drawn_are_sent_to_a_sampler():
    Counting.circuits = Counting.shots = 0
    result = run(5, backend=Counting(), seed=3, shots_total=3000)
    design = result.record.design
    assert result.metadata["num_subexperiments"] == Counting.circuits < 3000
    assert result.metadata["shots_total"] == Counting.shots <= 3000
    assert design.drawn == (0,)
    assert abs(error_of(result, 5)) < 4.5


def test_the_same_seed_draws_the_same_on_other_pools():
    results = [run(5, seed=3, pool=pool, shots_total=3000) for pool in ("threads", "processes")]
    assert results[0].data.evs == results[1].data.evs
    assert results[0].data.stds == results[1].data.stds
    other = run(5, seed=4, shots_total=3000)
    assert other.data.evs != results[0].data.evs


@pytest.mark.parametrize(
    "options",
    [{"shots": 4}, {"shots_total": 60_000, "allocation": "neyman"}],
)
def test_fixed_shots_and_other_allocations_run_every_setting(options):
    result = run(5, seed=3, **options)
    assert result.metadata["num_subexperiments"] >= result.metadata["num_circuits"] == 3150
    assert getattr(result.record.design, "drawn", None) is None


@pytest.mark.parametrize(("ends", "drawn"), [(4, None), (5, [0])])
def test_records_name_the_fragments_whose_settings_were_drawn(tmp_path, ends, drawn):
    """Few ends have designed weights, and records as before."""
    log = tmp_path / "log.jsonl"
    with DistributedEstimator(LABELS[: ends + 1], log=log, options=EstimatorOptions(seed=3)) as own:
        own.run([(star(ends), "Z" * (ends + 1))], precision=0.1).result()
    header, line = log.read_bytes().splitlines()
    assert header
    assert json.loads(line)["design"].get("drawn") == drawn
    assert decode(line).design.drawn == (None if drawn is None else tuple(drawn))


def test_too_few_shots_are_refused():
    with pytest.raises(InputError, match=r"settings are drawn at random.* give at least 1424"):
        run(5, seed=3, shots_total=1000)


def test_too_little_memory_is_refused():
    with pytest.raises(PlanTooLargeError, match=r"fragment 0 .*cut fewer gates of that fragment"):
        run(9, seed=3, shots_total=20_000, memory_limit=100 << 20)


@pytest.mark.soak
def test_values_are_unbiased_and_covered():
    """Errors over standard errors have mean 0 to 4 / √300, and at most 95 % + 4 % lie within 1.96.

    Standard errors are to first order, which is larger on average: coverage may be higher.
    """
    errors = np.array([error_of(run(5, seed=s, shots_total=8000), 5) for s in range(300)])
    assert abs(errors.mean()) < 4 / np.sqrt(300)
    assert np.mean(np.abs(errors) < 1.96) > 0.91
    assert errors.std() > 0.75


def test_draws_of_many_bindings_are_refused_before_they_take_the_memory():
    circuit = star(5, ParameterVector("a", 2))
    points = np.random.default_rng(1).uniform(-1, 1, (200, 2))
    options = EstimatorOptions(seed=1, memory_limit=4 << 20)
    with (
        DistributedEstimator("ABCDEF", options=options) as estimator,
        pytest.raises(PlanTooLargeError, match=r"fragment 0 at 200 bindings .* fewer bindings"),
    ):
        estimator.run([(circuit, "Z" * 6, points)], precision=0.01).result()
