"""Workloads from files of the user's: tables in CSV and Parquet, and the full MNIST."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import load, same, samples, write_csv

from distributed_estimator.errors import InputError
from distributed_estimator.training.workloads import FEATURE_RANGE

LOW, HIGH = FEATURE_RANGE


def write_parquet(path: Path, table: dict[str, object]) -> Path:
    pq.write_table(pa.table(table), path)
    return path


@pytest.fixture
def table() -> dict[str, list[object]]:
    return samples()


@pytest.mark.parametrize("write", [write_csv, write_parquet])
def test_a_file_of_the_users(write, table: dict[str, list[object]], tmp_path: Path):
    path = tmp_path / f"plants.{write.__name__[6:]}"
    write(path, table)
    task = load(path)
    assert task.name == path.name
    assert task.classes == ("no", "yes")
    assert task.x_train.shape == (32, 3)
    assert np.array_equal(np.sign(task.x_train[:, 0] - HIGH / 2), task.y_train)


def test_a_file_that_is_called_by_its_ending(table: dict[str, list[object]], tmp_path: Path):
    assert load(write_csv(tmp_path / ".csv", table)).name == ".csv"
    assert load(write_csv(tmp_path / "A.CSV", table)).num_features == 3
    assert load(write_parquet(tmp_path / ".parquet", table)).name == ".parquet"


@pytest.mark.parametrize(
    ("names", "target"),
    [("0123", None), ("123k", None), ("0123", "2"), ("k012", "k")],
)
def test_columns_may_be_numbered_from_0_or_1(names: str, target: str | None, tmp_path: Path):
    table = samples()
    kinds, features = table.pop("kind"), iter(table.values())
    label = names[-1] if target is None else target
    renamed = {name: kinds if name == label else next(features) for name in names}
    path = write_csv(tmp_path / "a.csv", renamed)
    assert load(path, target=target).x_train.shape == (32, 3)


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
        ((1.5, 0.5), ("0.5", "1.5")),
        (("b", "a"), ("a", "b")),
        (("9", "x"), ("9", "x")),
        (("1", "01"), ("01", "1")),
        (("1.0", "1"), ("1", "1.0")),
        (("inf", "-inf"), ("-inf", "inf")),
    ],
)
@pytest.mark.parametrize("write", [write_csv, write_parquet])
def test_classes_are_text_or_numbers_in_an_order_of_their_own(
    write, kinds, classes, tmp_path: Path
):
    path = tmp_path / f"a.{write.__name__[6:]}"
    for first in (0, 1):
        write(path, {**samples(), "kind": [kinds[(row + first) % 2] for row in range(40)]})
        assert load(path).classes == classes
    assert same(load(path, classes=classes), load(path))
    assert load(path, classes=classes[::-1]).classes == classes[::-1]


def test_a_class_may_be_called_nan(tmp_path: Path):
    table = {**samples(), "kind": ["nan", "1"] * 20}
    assert load(write_parquet(tmp_path / "a.parquet", table)).classes == ("1", "nan")


def test_two_of_more_classes_are_chosen(table: dict[str, list[object]], tmp_path: Path):
    table["kind"] = ["abc"[row % 3] for row in range(40)]
    path = write_csv(tmp_path / "a.csv", table)
    assert load(path, classes=("c", "a")).classes == ("c", "a")
    assert load(path).classes == ("a", "b", "c")
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
        ("5.1,3.5,rose\n4.9,3.0,lily\n", r"the first line of .* has numbers .* \(5.1, 3.5\): put"),
        ("1,3,rose\n2,2,lily\n", r"has numbers for the names of its features \(1, 3\): put a line"),
        ("a,b\n1,x\n,y\n", "row 2 of column `a` in .* is missing or NaN: put in a number"),
        ("a,b\nnan,x\n2,y\n", "row 1 of column `a` in .* is missing or NaN"),
        ("a,b\n1,x\ninf,y\n", "row 2 of column `a` in .* is inf: put in a number below 1e"),
        ("a,b\n1,x\n1e200,y\n", r"row 2 of column `a` in .* is 1e\+200"),
        ("a,b\n1,x\n2,\n", "row 2 of the class column `b` in .* is missing: put in its class"),
        (
            "a,b\n1,x\n2,NA\n",
            r"`b` in .* is missing: .*\(in CSV, NA, null and the like count as mi",
        ),
        (
            "a,b\n1,x\nred,y\n",
            r"column `a` of .* of type string \('red' in row 2\), and features are",
        ),
        ("a,b\n2020-01-01,x\n2020-01-02,y\n", "column `a` of .* holds values of type date32"),
        ("a,b\n1,x\n2,x\n", r"has 1 class \(x\), and two or more are needed"),
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


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_huge_file_is_refused(name: str, tmp_path: Path):
    with (tmp_path / name).open("wb") as file:
        file.truncate(2**30 + 2**25)  # sparse: it takes no room
    with pytest.raises(InputError, match=r"has 1.03 GiB, more than the limit of 1 GiB: train on a"):
        load(tmp_path / name)


def test_a_small_file_that_unpacks_to_a_huge_one_is_refused(tmp_path: Path):
    path = tmp_path / "a.parquet"
    part = pa.table({"a": np.zeros(2**20, np.int8), "b": np.zeros(2**20, np.int8)})
    with pq.ParquetWriter(path, part.schema) as writer:
        for _ in range(65):
            writer.write_table(part)
    assert path.stat().st_size < 2**20
    with pytest.raises(InputError, match="unpacks to 68157440 rows of 2 columns, more than the li"):
        load(path)


def test_a_csv_file_whose_numbers_take_more_room_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "a.csv"
    path.write_text("a,b\n" + "1,x\n2,y\n" * 50, "utf-8")
    size = path.stat().st_size
    assert size < 100 * 2 * 8
    monkeypatch.setattr("distributed_estimator.training.sources.SIZE_LIMIT", size)
    with pytest.raises(InputError, match="unpacks to 100 rows of 2 columns, more than the limit"):
        load(path)


def cut(content: bytes) -> bytes:
    return content[:-20]


def overwritten(content: bytes) -> bytes:
    return content[:4] + b"\xff" * 196 + content[200:]


@pytest.mark.parametrize("damage", [cut, overwritten, lambda content: b"not Parquet at all"])
def test_a_damaged_parquet_file_is_refused(damage, table: dict[str, list[object]], tmp_path: Path):
    path = write_parquet(tmp_path / "a.parquet", table)
    path.write_bytes(damage(path.read_bytes()))
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
        ([1.0 + 2e-16 * row for row in range(40)], "constant columns in workload `a.parquet`: `w"),
        ([1e-160 * row for row in range(40)], "constant columns in workload `a.parquet`: `width`"),
    ],
)
def test_columns_that_are_no_features_are_refused(
    values: list[object], message: str, table: dict[str, list[object]], tmp_path: Path
):
    path = write_parquet(tmp_path / "a.parquet", {**table, "width": values})
    with pytest.raises(InputError, match=message):
        load(path)


# --- the full MNIST, in files of its format


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


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("train-images-idx3-ubyte", b"nothing of the kind", "train-images.*` is damaged"),
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


def test_mnist_files_of_different_images_are_refused(tmp_path: Path):
    raw = write_mnist(tmp_path)
    write_idx(raw / "t10k-images-idx3-ubyte", np.zeros((60, 14, 14)))
    with pytest.raises(InputError, match=r"shapes \(28, 28\) and \(14, 14\): give files of one"):
        load("mnist", data_dir=str(tmp_path))


@pytest.mark.parametrize(
    ("reduction", "message"),
    [("pca", "vary in 0 directions only"), ("pool", "constant columns .*: `cell 0,0`, `cell 0,1`")],
)
def test_images_that_are_all_alike_are_refused(reduction: str, message: str, tmp_path: Path):
    raw = write_mnist(tmp_path)
    write_idx(raw / "train-images-idx3-ubyte", np.full((200, 28, 28), 9))
    with pytest.raises(InputError, match=message):
        load("mnist", data_dir=str(tmp_path), reduction=reduction)


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
