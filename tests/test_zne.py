"""Values at several noise factors are extrapolated to none, with the errors that follow."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from helpers import Misread
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from test_statistics import assert_calibrated, chain

from distributed_estimator import (
    DistributedEstimator,
    EstimatorOptions,
    FragmentGradient,
    Mitigation,
    Zne,
)
from distributed_estimator.errors import DeadlineError, InputError, PrecisionWarning
from distributed_estimator.execution import Deadline, Policy
from distributed_estimator.records import QueryRecord, TaskRecord, read_records
from distributed_estimator.subexperiments import extrapolated

FACTORS = 1, 3, 5
EXTRAPOLATORS = "linear", "richardson", "exponential"
MOST = 10**12


def law(extrapolator, factors=FACTORS):
    """What is left of a bit, so that the value of one is extrapolated exactly."""
    kept = {
        "linear": lambda factor: 1 - 0.06 * factor,
        "richardson": lambda factor: 1 - 0.08 * factor + 0.003 * factor**2,
        "exponential": lambda factor: np.exp(-0.06 * factor),
    }[extrapolator]
    return tuple((factor, float(kept(factor))) for factor in factors)


def estimator(labels, extrapolator="linear", journal=None, *, noise=None, readout=False, **options):
    mitigation = Mitigation(readout=readout, zne=Zne(FACTORS, extrapolator))
    backend = noise or Misread(kept=law(extrapolator))
    own = EstimatorOptions(**{"seed": 1, "mitigation": mitigation, **options})
    return DistributedEstimator(labels, backend, workers=2, options=own, journal=journal)


@pytest.mark.parametrize("factors", [(1, 3), (1, 3, 5), (1, 3, 7, 9)])
def test_polynomials_are_extrapolated_exactly(factors):
    noise, rng = np.array(factors)[:, None], np.random.default_rng(3)
    for extrapolator, degree in (("linear", 1), ("richardson", len(factors) - 1)):
        coefficients = rng.normal(size=(degree + 1, 20))
        values = (coefficients * noise[..., None] ** np.arange(degree + 1)[:, None]).sum(axis=1)
        found, weights = extrapolated(factors, extrapolator, values, 0 * values)
        assert np.allclose(found, coefficients[0], atol=1e-9)
        assert np.allclose((weights * values).sum(axis=0), found)
        assert np.allclose(weights.sum(axis=0), 1)


@pytest.mark.parametrize("factors", [(1, 3), (1, 3, 5), (1, 3, 7, 9)])
def test_exponentials_are_extrapolated_exactly(factors):
    rng = np.random.default_rng(3)
    at_none, rates = rng.uniform(-1, 1, 50), rng.uniform(-0.05, 0.6, 50)
    values = at_none * np.exp(-rates * np.array(factors)[:, None])
    found, _ = extrapolated(factors, "exponential", values, 0 * values)
    assert np.allclose(found, at_none, atol=1e-9)


def test_values_whose_sign_is_not_known_are_extrapolated_by_a_straight_line():
    values = np.array([[0.5, 0.5, 0.5], [0.3, 0.3, 0.3], [0.1, 0.1, -0.1]])
    stderrs = np.array([0.01, 0.06, 0.01]) * np.ones((3, 1))
    line, _ = extrapolated(FACTORS, "linear", values, stderrs)
    found, _ = extrapolated(FACTORS, "exponential", values, stderrs)
    assert np.array_equal(found == line, [False, True, True])


@pytest.mark.parametrize("extrapolator", EXTRAPOLATORS)
def test_errors_propagate_as_values_spread(extrapolator):
    """Of 2000 draws, with five standard deviations of a spread's estimate."""
    rng = np.random.default_rng(4)
    true = 0.6 * np.exp(-0.1 * np.array(FACTORS))[:, None]
    stderrs = np.array([0.004, 0.008, 0.006])[:, None] * np.ones(2000)
    values = true + rng.normal(size=stderrs.shape) * stderrs
    found, weights = extrapolated(FACTORS, extrapolator, values, stderrs)
    claimed = np.sqrt(((weights * stderrs) ** 2).sum(axis=0).mean())
    assert abs(found.std() / claimed - 1) < 5 / np.sqrt(4000)


@pytest.mark.parametrize("readout", [False, True])
@pytest.mark.parametrize("extrapolator", EXTRAPOLATORS)
def test_noise_that_an_extrapolator_describes_is_taken_out(extrapolator, readout):
    circuit, labels = chain("cx", 1)
    point = np.full(circuit.num_parameters, 0.3)
    exact = DistributedEstimator(labels).run([(circuit, "IZ", point)], precision=0).result()
    flips = (0.05, 0.02) if readout else (0.0,)
    noise = Misread(flips=flips, drawn=False, kept=law(extrapolator))
    own = estimator(labels, extrapolator, noise=noise, readout=readout, shots=MOST)
    found = own.run([(circuit, "IZ", point)]).result()[0]
    assert found.data.evs == pytest.approx(exact[0].data.evs, abs=1e-9)
    assert found.metadata["mitigation"]["extrapolator"] == extrapolator
    plain = DistributedEstimator(labels, noise, options=EstimatorOptions(shots=MOST, seed=1))
    biased = plain.run([(circuit, "IZ", point)]).result()[0].data.evs
    assert abs(biased - exact[0].data.evs) > 1e-3


@pytest.mark.parametrize(
    ("extrapolator", "options"),
    [
        ("linear", {"shots": 1000}),
        ("linear", {"default_precision": 0.05}),
        ("richardson", {"shots_total": 300 * 20_000}),
        ("exponential", {"shots": 4000}),
        ("exponential", {"default_precision": 0.05}),
    ],
)
def test_extrapolated_values_scatter_as_their_standard_errors_say(extrapolator, options):
    """Of n bindings the mean of z² has a standard deviation of √(2/n)."""
    circuit, labels = chain("cx", 1)
    points = np.random.default_rng(9).uniform(-0.4, 0.4, (300, circuit.num_parameters))
    pub = circuit, "IZ", points
    exact = DistributedEstimator(labels).run([pub], precision=0).result()[0].data.evs
    result = estimator(labels, extrapolator, **options).run([pub]).result()[0]
    data = result.data
    assert_calibrated(data.evs - exact, data.stds, 5 * np.sqrt(2 / 300))
    if "default_precision" in options:
        assert result.metadata["reached_precision"] <= options["default_precision"]
    if "shots_total" in options:
        assert result.metadata["shots_total"] <= options["shots_total"]


@pytest.mark.parametrize("extrapolator", EXTRAPOLATORS)
def test_a_precision_holds_with_what_calibrations_add_at_all_noise_factors(extrapolator):
    """The same qubits are misread at all of them: their parts add up, not the squares of these."""
    circuit, labels = chain("cx", 1)
    point = np.full(circuit.num_parameters, 0.3)
    noise = Misread(flips=(0.06, 0.03), calibration=30_000, kept=law(extrapolator))
    own = estimator(labels, extrapolator, noise=noise, readout=True)
    result = own.run([(circuit, ["IZ", "ZZ"], point)], precision=0.03).result()[0]
    assert result.metadata["reached_precision"] <= 0.03
    exact = DistributedEstimator(labels).run([(circuit, ["IZ"], point)], precision=0).result()
    moved = 2 * np.sqrt(0.06 * 0.94 / 30_000) / 0.88 * abs(exact[0].data.evs[0])
    assert result.metadata["mitigation"]["readout_stderr"] > moved / 4


def test_noise_factors_share_the_time_until_a_deadline():
    """Each ends at its own part of it, so that no other is left without any."""
    circuit, labels = chain("cx", 1)
    pub = circuit, "ZZ", np.full(circuit.num_parameters, 0.3)
    policy = Policy(deadline=Deadline(600.0))
    own = estimator(labels, shots=500, policy=policy)
    plain = estimator(labels, shots=500)
    one, other = (each.run([pub]).result()[0].data for each in (own, plain))
    assert abs(one.evs - other.evs) < 5 * np.hypot(one.stds, other.stds)
    ends = [level.end for level in Mitigation(zne=True).levels()]
    assert ends == pytest.approx([13 / 22, 17 / 22, 1])
    over = estimator(labels, shots=500, policy=Policy(deadline=Deadline(2.2e-9)))
    with pytest.raises(DeadlineError, match=r"after 1\.3e-09 s some tasks"):
        over.run([pub]).result()


@pytest.mark.soak
def test_error_bars_cover_the_extrapolation_of_noise_that_is_no_line():
    """Of n = 1500 runs the share within one standard error has a standard deviation of 1.2 points.

    Calibrations and shots are drawn again for each; four points are the bar.
    """
    circuit, labels = chain("cx", 1)
    point = np.full(circuit.num_parameters, 0.3)
    exact = DistributedEstimator(labels).run([(circuit, "IZ", point)], precision=0).result()
    kept = law("richardson")
    target = np.dot([13 / 12, 4 / 12, -5 / 12], [left for _, left in kept]) * exact[0].data.evs
    noise = Misread(flips=(0.06, 0.03), calibration=4000, kept=kept)
    own = estimator(labels, noise=noise, readout=True, shots=1000)
    z = []
    for seed in range(1500):
        noise.seeds[0] = seed
        data = own.run([(circuit, "IZ", point)]).result()[0].data
        z.append((data.evs - target) / data.stds)
    for limit, share in ((1.0, 0.683), (1.96, 0.95)):
        assert abs(np.mean(np.abs(z) < limit) - share) < 0.04


def test_covariances_are_those_of_extrapolated_values():
    """Of 200 runs; a covariance's estimate has a standard deviation of √2 σ₁σ₂/√200 at most."""
    circuit, labels = chain("cx", 1)
    point = np.full(circuit.num_parameters, 0.3)
    pub = circuit, ["IZ", "ZZ"], point
    own = estimator(labels, shots=2000)
    found = [own.run([pub], covariance=True).result() for _ in range(200)]
    values = np.array([each[0].data.evs for each in found])
    claimed = np.mean([each.metadata["covariance"] for each in found], axis=0)
    scale = np.sqrt(np.outer(np.diag(claimed), np.diag(claimed)))
    assert (np.abs(np.cov(values.T) - claimed) < 5 * np.sqrt(2 / 200) * scale).all()


def test_gradients_are_extrapolated_with_their_errors():
    angle = Parameter("a")
    circuit = QuantumCircuit(2)
    circuit.ry(angle, 0)
    circuit.cx(0, 1)
    circuit.ry(0.4, 1)
    exact = FragmentGradient(DistributedEstimator("AB"), precision=0)
    wanted = exact.run([circuit], ["ZI"], [[0.7]]).result().gradients[0]
    gradient = FragmentGradient(estimator("AB", shots=2000))
    found = [gradient.run([circuit], ["ZI"], [[0.7]]).result() for _ in range(150)]
    errors = np.array([each.gradients[0] - wanted for each in found])
    assert_calibrated(
        errors, np.array([each.metadata[0]["stderrs"] for each in found]), 5 * np.sqrt(2 / 150)
    )
    derivatives, stderrs = gradient.weighted((circuit, ["ZI", "IZ"], [0.7]), [1.0, -0.5])
    assert derivatives.shape == (2, 1)
    assert stderrs.shape == (1,)
    assert (stderrs > 0).all()


def test_circuits_and_shots_of_all_noise_factors_are_counted(tmp_path):
    circuit, labels = chain("cx", 1)
    point = np.full(circuit.num_parameters, 0.3)
    mitigation = Mitigation(zne=True)
    options = EstimatorOptions(shots=1100, seed=1, mitigation=mitigation)
    own = DistributedEstimator(
        labels, Misread(), options=options, log=tmp_path / "log", trace=tmp_path / "trace"
    )
    own.run([(circuit, "ZZ", point)]).result()
    own.close()
    records = [*read_records(tmp_path / "log"), *read_records(tmp_path / "trace")]
    (record,) = (own for own in records if isinstance(own, QueryRecord))
    tasks = [own for own in records if isinstance(own, TaskRecord)]
    assert record.mitigation.factors == FACTORS
    assert record.num_circuits == record.num_subexperiments == 30
    assert sum(task.subexperiments for task in tasks) == record.num_subexperiments
    # Of 1100 shots a circuit 13/22 run as it is, 4/22 with gates three times over, 5/22 with five.
    assert sorted({task.shots for task in tasks}) == [200, 250, 650]
    assert record.shots_total == 1100 * 10
    assert len({task.key for task in tasks}) == len(tasks)
    assert {task.query_id for task in tasks} == {record.query_id}


def test_probabilities_are_extrapolated():
    """Of the first qubit, which is read once: noise leaves a share of its deviation from 1/2."""
    circuit = QuantumCircuit(2)
    circuit.ry(0.9, 0)
    circuit.cx(0, 1)
    own = estimator("AB", noise=Misread(kept=law("linear"), drawn=False), shots=MOST)
    found = own.probabilities(circuit, [0])
    exact = DistributedEstimator("AB").probabilities(circuit, [0], precision=0)
    assert np.allclose(found.values, exact.values, atol=1e-9)


def test_the_same_seed_gives_the_same_bits():
    circuit, labels = chain("cx", 1)
    pub = circuit, "ZZ", np.full(circuit.num_parameters, 0.3)
    one, other = (estimator(labels).run([pub], precision=0.1).result()[0].data for _ in range(2))
    assert (one.evs, one.stds) == (other.evs, other.stds)


def test_shots_that_are_too_few_for_all_noise_factors_are_refused():
    circuit, labels = chain("cx", 1)
    pub = circuit, "ZZ", np.full(circuit.num_parameters, 0.3)
    with pytest.raises(InputError, match=r"leaves 5 shots for a noise factor, and 10.*least 55,"):
        estimator(labels, shots_total=30).run([pub]).result()
    with pytest.warns(PrecisionWarning, match="`max_shots`"):
        estimator(labels, max_shots=4000).run([pub], precision=0.01).result()


@pytest.mark.parametrize(
    ("extrapolator", "options", "message"),
    [
        # 4/22 of 50 are 9, 13/22 of 50 are 29.
        ("linear", {"shots_total": 50}, r"leaves 9 shots.*at least 55,"),
        ("linear", {"max_shots": 50}, r"leaves 9 shots.*at least 55,"),
        # The pilot has an eighth.
        ("exponential", {"max_shots": 300}, r"leaves 6 shots.*at least 440,"),
        ("linear", {"shots": 5}, r"`shots` is 5.*leaves none.*at least 6$"),
    ],
)
def test_shots_are_refused_before_any_noise_factor_takes_some(
    tmp_path, extrapolator, options, message
):
    circuit, labels = chain("cx", 1)
    pub = circuit, "ZZ", np.full(circuit.num_parameters, 0.3)
    mitigation = Mitigation(zne=Zne(FACTORS, extrapolator))
    own = EstimatorOptions(seed=1, mitigation=mitigation, **options)
    trace = tmp_path / "trace"
    refused = DistributedEstimator(labels, Misread(), options=own, trace=trace)
    with refused, pytest.raises(InputError, match=message):
        refused.run([pub]).result()
    assert not trace.exists()


@pytest.mark.parametrize("options", [{"shots": 7}, {"shots_total": 70}, {"max_shots": 70}])
def test_noise_factors_take_no_more_shots_than_there_are(options):
    circuit, labels = chain("cx", 1)
    pub = circuit, "ZZ", np.full(circuit.num_parameters, 0.3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrecisionWarning)
        taken = estimator(labels, **options).run([pub]).result()[0].metadata["shots_total"]
    assert 30 <= taken <= 70


def test_a_run_that_is_repeated_from_its_journal_plans_the_same(tmp_path):
    """A pilot for exponentials counts in `max_shots`, also where it does not run again."""
    circuit, labels = chain("cx", 1)
    pub = circuit, "Z" * circuit.num_qubits, [0.4] * circuit.num_parameters
    found = []
    for _ in range(2):
        own = estimator(
            labels, "exponential", tmp_path / "own.journal", default_precision=1e-3, max_shots=20000
        )
        with own, pytest.warns(PrecisionWarning, match="`max_shots`"):
            found.append(own.run([pub]).result()[0])
    first, again = found
    assert again.data.evs == first.data.evs
    assert (first.metadata["shots_total"] > 0, again.metadata["shots_total"]) == (True, 0)
