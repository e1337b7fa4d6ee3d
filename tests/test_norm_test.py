"""Shots of a training's steps follow the noise of its gradient."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from distributed_estimator.analysis.load import load_queries, load_training
from distributed_estimator.errors import InputError
from distributed_estimator.training.config import TrainingConfig
from distributed_estimator.training.loop import train
from distributed_estimator.training.models import ModelConfig
from distributed_estimator.training.networks import build_classifier, loss_variance, mean_loss
from distributed_estimator.training.norm_test import NormTest
from distributed_estimator.training.runs import RunFolder
from distributed_estimator.training.trained import TrainedNetwork
from distributed_estimator.training.workloads import Workload, WorkloadConfig, load_workload

ADAPTIVE = TrainingConfig(cuts=1, shots_total=20_000, adaptive_shots=0.5, epochs=6)


@pytest.fixture(scope="module")
def task() -> Workload:
    return load_workload(WorkloadConfig("iris", seed=7))


# --- the test


def test_shots_settle_where_the_error_of_the_mean_is_theta_of_its_norm():
    """Steady gradients g with a variance of c/n: of the mean of 19 steps it is c/(19 n), and the
    square of its norm |g|² + c/(19 n) on average, noise included."""
    rng, theta, price = np.random.default_rng(2), 0.6, 5_000.0
    gradient = np.full(50, 0.1)
    test, found = NormTest(theta, 10**6, shots=100), []
    for step in range(1200):
        shots, size = test.shots, price / test.shots / 50
        test.update(shots, price / shots, gradient + rng.normal(0, np.sqrt(size), 50))
        found += [test.shots] * (step >= 200)
    expected = price / 19 * (1 - theta**2) / (theta**2 * float(gradient @ gradient))
    # The norm's square scatters by 15 % at 50 weights, and 1000 steps have 50 independent means:
    # their median has a standard deviation of 1.25 · 15 %/√50 = 2.7 %.
    assert np.median(found) == pytest.approx(expected, rel=4 * 0.027)


def test_shots_grow_by_a_factor_and_up_to_a_limit():
    test, found = NormTest(0.5, 5_000, shots=1_000), []
    for _ in range(4):
        test.update(test.shots, 1.0, np.zeros(3))  # nothing but noise
        found.append(test.shots)
    assert found == [2_000, 4_000, 5_000, 5_000]
    test.update(5_000, 0.0, np.full(3, 10.0))
    assert 1 <= test.shots < 5_000


def test_a_configuration_says_where_it_begins_and_ends():
    test = NormTest.of(ADAPTIVE)
    assert test is not None
    assert (test.theta, test.shots, test.most) == (0.5, 20_000, 2_000_000)
    assert NormTest.of(replace(ADAPTIVE, max_shots=30_000)).most == 30_000
    assert NormTest.of(TrainingConfig(shots_total=20_000)) is None


# --- the variance


@pytest.mark.soak
@pytest.mark.parametrize(
    ("part", "head", "loss", "observable"),
    [
        (1.0, "none", "mse", "z_all"),
        (1.0, "linear", "cross_entropy", "z_each"),
        (0.5, "none", "mse", "z_all"),
    ],
)
def test_the_variance_of_the_loss_gradient_is_that_of_repeated_steps(
    task: Workload, part: float, head: str, loss: str, observable: str
):
    """The squared error of 200 steps has a relative standard deviation of √(2/200) = 10 % at most,
    for one component. First order overstates by up to a tenth at ten shots a circuit and more."""
    config = replace(
        ADAPTIVE, shots_total=20_000, head=head, loss=loss, model=ModelConfig(observable=observable)
    )
    rng, samples = np.random.default_rng(4), np.arange(8)
    gradients, claimed = [], []
    torch.manual_seed(1)
    _, classifier = build_classifier(config, 4, None, None)
    weights = classifier.layer.weights

    def step(classifier: torch.nn.Module, chosen: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        classifier.zero_grad()
        outputs = classifier.layer(torch.from_numpy(task.x_train[chosen]))
        targets = torch.from_numpy(task.y_train[chosen])
        value = mean_loss(config.loss)(classifier.scores(outputs), targets)
        value.backward(retain_graph=True)
        return value, outputs

    for _ in range(200):
        chosen = rng.permutation(samples)[: int(part * len(samples))]
        value, outputs = step(classifier, chosen)
        gradients.append(weights.grad.numpy().copy())
        claimed.append(loss_variance(value, outputs, classifier.layer.network.noise, part))
    torch.manual_seed(1)
    _, exact = build_classifier(config.exact(), 4, None, None)
    step(exact, samples)
    actual = ((np.array(gradients) - exact.layer.weights.grad.numpy()) ** 2).sum(axis=1).mean()
    assert 1 - 4 * 0.1 < np.mean(claimed) / actual < 1 + 4 * 0.1 + 0.1


# --- the training


def test_records_say_what_steps_took(task: Workload, tmp_path: Path):
    config = replace(ADAPTIVE, max_shots=25_000)
    result = train(task, config, RunFolder(tmp_path / "run"))
    first, *rest = load_training(result.folder.training)
    assert "step_shots" not in first.metrics
    taken = [record.metrics["step_shots"] for record in rest]
    assert taken[0] == 20_000
    assert len(set(taken)) > 2
    assert max(taken) <= 25_000
    assert all(record.metrics["gradient_stderr"] > 0 for record in rest)
    queries = load_queries(result.folder.queries)[1:]
    for values, gradients, shots in zip(queries[::3], queries[1::3], taken, strict=True):
        assert values.quantity == "value"
        assert gradients.quantity == "gradient"
        # Shots are rounded to few numbers, down; which, depends on the processor.
        assert 0.75 * shots < values.shots_total + gradients.shots_total <= shots
    document = json.loads(result.folder.summary.read_text("utf-8"))["config"]
    assert TrainingConfig.from_dict(document) == config
    assert TrainedNetwork.load(result.folder, exact=True).config.adaptive_shots is None


def test_few_shots_are_spent_on_some_of_the_samples(task: Workload, tmp_path: Path):
    """80 samples have 5,900 circuits: each step gets five shots for those that it takes."""
    config = replace(ADAPTIVE, shots_total=4_000, max_shots=4_000, adaptive_shots=0.1, epochs=2)
    result = train(task, config, RunFolder(tmp_path / "run"))
    steps = [r for r in load_queries(result.folder.queries) if r.quantity == "gradient"]
    assert all(2 <= record.num_queries < 40 for record in steps)
    least = replace(config, shots_total=1, max_shots=1)
    result = train(task, least, RunFolder(tmp_path / "least"))
    steps = [r for r in load_queries(result.folder.queries) if r.quantity == "gradient"]
    assert [record.num_queries for record in steps] == [2, 2]
    assert np.isfinite(load_training(result.folder.training)[-1].metrics["gradient_stderr"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"adaptive_shots": 1.0}, "`adaptive_shots` is 1.0: give a ratio above 0 and below 1"),
        ({"adaptive_shots": 0}, "`adaptive_shots` is 0: give a ratio above 0 and below 1"),
        ({"shots_total": None}, "`adaptive_shots` is 0.5, and `shots_total` is not given: give"),
        ({"max_shots": 9}, "`max_shots` is 9 and `shots_total`, of the first step, 20000: give"),
        ({"optimizer": "spsa"}, "`adaptive_shots` is 0.5, and spsa takes no gradient: leave it"),
        ({"adaptive_shots": None, "max_shots": 9}, "`max_shots` is 9, and shots of steps do not"),
        ({"pipeline": "reference"}, "the reference pipeline does not divide `shots_total`"),
    ],
)
def test_bad_input(change: dict[str, object], message: str):
    with pytest.raises(InputError, match=message):
        replace(ADAPTIVE, **change)
