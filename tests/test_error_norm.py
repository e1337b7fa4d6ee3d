"""The root mean square of standard errors as what a precision, or a budget, is for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers import as_operator, entangled, reference
from qiskit.circuit.library import real_amplitudes

from distributed_estimator import DistributedEstimator, EstimatorOptions, FragmentGradient
from distributed_estimator.errors import InputError, PrecisionWarning
from distributed_estimator.pipeline import pipeline
from distributed_estimator.subexperiments import design
from distributed_estimator.subexperiments.seen import Entries

CIRCUIT = entangled(3, 2, layers=1)
UNEQUAL = ["ZZZ", {"IXI": 0.3}, {"ZIZ": 0.1}, {"XIX": 2.0}]
"""Observables in two bases of the middle qubit, whose errors differ by a factor of 20."""


def estimator(cuts="ABC", **options):
    options = EstimatorOptions(**{"seed": 1, **options})
    return DistributedEstimator(cuts, workers=2, options=options)


def run(*pubs, precision=None, independent=False, covariance=False, **options):
    kinds = {"independent": independent, "covariance": covariance}
    return estimator(**options).run(pubs, precision=precision, **kinds).result()


def rms(numbers):
    return float(np.sqrt((np.asarray(numbers) ** 2).mean()))


def shots_in(result):
    return result[0].metadata["shots_total"]


@pytest.mark.parametrize("allocation", ["optimal", "neyman", "uniform"])
def test_a_norm_is_met_with_fewer_shots_than_every_error(allocation):
    """Results that share shots, and sums of Paulis, too."""
    pub = CIRCUIT, UNEQUAL
    norm, largest = (
        run(pub, precision=0.02, error_norm=own, allocation=allocation) for own in ("rms", "max")
    )
    stderrs, metadata = norm[0].data.stds, norm[0].metadata
    assert metadata["reached_precision"] == pytest.approx(rms(stderrs), rel=1e-12)
    assert metadata["reached_precision"] <= 0.02 < stderrs.max()
    assert norm[0].record.design.stderr <= 0.02
    assert (metadata["error_norm"], norm[0].record.design.norm) == ("rms", "rms")
    assert largest[0].record.design.norm is None
    assert largest[0].metadata["reached_precision"] == largest[0].data.stds.max() <= 0.02
    assert shots_in(norm) < 0.6 * shots_in(largest)


def test_every_pub_meets_a_norm_of_its_own():
    """In one batch with others, and with a precision of its own."""
    pubs = [(CIRCUIT, UNEQUAL), (CIRCUIT, ["IIX"]), (CIRCUIT, UNEQUAL[::-1], None, 0.04)]
    found = run(*pubs, precision=0.02, error_norm="rms")
    for own, precision in zip(found, (0.02, 0.02, 0.04), strict=True):
        assert own.metadata["target_precision"] == precision
        assert own.metadata["reached_precision"] == pytest.approx(rms(own.data.stds), rel=1e-12)
        assert 0.5 * precision < rms(own.data.stds) <= precision


def test_values_that_meet_a_norm_are_unbiased_with_honest_errors():
    """Of n independent values Σ e² has the mean Σ σ², and the variance 2 Σ σ⁴; 5 deviations."""
    repetitions = 24
    observables = [as_operator(own) for own in UNEQUAL] * repetitions
    pub = CIRCUIT, observables
    data = run(pub, precision=0.05, independent=True, error_norm="rms")[0].data
    exact = np.tile([reference(CIRCUIT, own) for own in observables[:4]], repetitions)
    errors, z = data.evs - exact, (data.evs - exact) / data.stds
    assert rms(data.stds) <= 0.05
    total, spread = (data.stds**2).sum(), np.sqrt(2 * (data.stds**4).sum())
    assert abs((errors**2).sum() - total) <= 5 * spread
    assert abs(z.mean()) <= 5 / np.sqrt(z.size)
    assert abs((z**2).mean() - 1) <= 5 * np.sqrt(2 / z.size)


def test_a_budget_makes_the_norm_least():
    pub = CIRCUIT, UNEQUAL
    norm, largest = (run(pub, shots_total=10**6, error_norm=own, seed=0) for own in ("rms", "max"))
    assert 0.9e6 <= shots_in(norm) <= 10**6
    assert rms(norm[0].data.stds) < 0.9 * rms(largest[0].data.stds)
    assert largest[0].data.stds.max() < 0.95 * norm[0].data.stds.max()


def test_gradients_meet_a_norm_of_their_components():
    circuit = real_amplitudes(3, reps=1)
    points = np.random.default_rng(2).uniform(-1, 1, (2, circuit.num_parameters))
    for norm in ("rms", "max"):
        with estimator("AAB", error_norm=norm) as chosen:
            job = FragmentGradient(chosen, 0.03).run([circuit] * 2, ["ZZZ"] * 2, points)
            stderrs = np.array([own["stderrs"] for own in job.result().metadata])
        norms = np.sqrt((stderrs**2).mean(axis=1))
        assert (norms <= 0.03).all()
        assert (stderrs <= 0.03).all() == (norm == "max")


def test_the_derivatives_of_a_sum_meet_one_norm():
    circuit = real_amplitudes(3, reps=1)
    pub = circuit, ["IIX", "ZII"], np.linspace(-1, 1, circuit.num_parameters)
    with estimator("AAB", error_norm="rms") as chosen:
        _, stderrs = FragmentGradient(chosen, 0.03).weighted(pub, [1.0, -0.2])
    assert rms(stderrs) <= 0.03 < stderrs.max()


@pytest.mark.parametrize(
    ("coarser", "missed", "weights"), [(1.3, 0.2, (3 / 4, 1 / 4)), (2.0, 0.5, (0.0, 1.0))]
)
def test_a_norm_that_is_missed_gets_a_further_round_for_all_of_its_values(
    monkeypatch, coarser, missed, weights
):
    """The first round is planned as if the precision were coarser; the second PUB meets it."""
    own, rounds, made = pipeline.plan_shots, [], pipeline._Session._estimate

    def plan(pilots, sensitivities, accuracy, spent, variances=None, **keywords):
        if variances is None:
            accuracy = replace(accuracy, precision=coarser * accuracy.precision)
        return own(pilots, sensitivities, accuracy, spent, variances, **keywords)

    def make(session, sample):
        rounds.append(made(session, sample))
        return rounds[-1]

    monkeypatch.setattr(design, "_MISSED", missed)
    monkeypatch.setattr(pipeline, "plan_shots", plan)
    monkeypatch.setattr(pipeline._Session, "_estimate", make)
    result = run((CIRCUIT, UNEQUAL), (CIRCUIT, {"ZII": 0.1}), precision=0.02, error_norm="rms")
    first, second = rounds
    assert rms(first.stderrs[:4]) > 0.02 > first.stderrs[4]
    assert rms(result[0].data.stds) <= 0.02
    for name, power in (("values", 1), ("stderrs", 2)):
        parts = [weights[n] * getattr(each, name)[:4] for n, each in enumerate((first, second))]
        expected = np.sqrt(sum(p**2 for p in parts)) if power == 2 else sum(parts)
        found = result[0].data.evs if power == 1 else result[0].data.stds
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert result[1].data.evs == first.values[4]


def test_a_limit_of_shots_reports_the_norm_that_was_reached():
    with pytest.warns(PrecisionWarning, match="largest root mean square of a PUB's") as caught:
        found = run((CIRCUIT, UNEQUAL), precision=0.001, max_shots=50_000, error_norm="rms")
    reached = rms(found[0].data.stds)
    assert str(caught[0].message).endswith(f"is {reached:.3g}")
    assert found[0].metadata["reached_precision"] == pytest.approx(reached, rel=1e-12)
    assert reached > 0.001


def test_prices_know_the_norm():
    pub = CIRCUIT, UNEQUAL
    norm, largest = (
        estimator(error_norm=own).price([pub], precision=0.02) for own in ("rms", "max")
    )
    assert norm.optimal < norm.neyman < norm.uniform < norm.quasi_probability
    for name in ("optimal", "neyman", "uniform"):
        assert getattr(norm, name) < getattr(largest, name)
    # Each value has shots of its own: Σ a² at most, and (Σ a)²/n by the norm.
    sizes = np.array([1, 0.3, 0.1, 2.0])
    ratio = norm.quasi_probability / largest.quasi_probability
    assert ratio == pytest.approx(sizes.sum() ** 2 / 4 / (sizes**2).sum())
    taken = shots_in(run(pub, precision=0.02, error_norm="rms"))
    assert 0.7 <= taken / norm.optimal <= 1.4  # pilots differ


def test_what_a_row_adds_to_a_result_several_times_comes_from_the_same_shots():
    results = np.array([[0, 1, 0], [1, 1, 1]])
    entries = Entries(np.arange(2), results, np.zeros((2, 1, 1, 3, 1)))
    found = entries.together(np.array([[1.0, 4.0, 9.0], [1.0, 1.0, 4.0]]))
    sums = np.bincount(results.ravel(), found.ravel())
    assert sums.tolist() == pytest.approx([(1 + 3) ** 2, 4 + (1 + 1 + 2) ** 2])
    alone = replace(entries, results=np.array([[0, 1, 2], [3, 4, 5]]))
    variances = np.random.default_rng(0).uniform(size=(2, 3))
    assert np.array_equal(alone.together(variances), variances)


@pytest.mark.parametrize("norm", ["rms", "max"])
def test_pubs_without_values_meet_any_norm(norm):
    pub = real_amplitudes(2, reps=1), "ZZ", np.zeros((0, 4))
    found = run(pub, (pub[0], "ZZ", np.zeros((1, 4))), cuts="AB", error_norm=norm)
    assert found[0].metadata["reached_precision"] == 0.0


def test_norms_that_are_none():
    with pytest.raises(InputError, match="`error_norm` is 'mean': use \"max\" or"):
        EstimatorOptions(error_norm="mean")
