"""The full MNIST, read from files of its format."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from helpers import load, same

from distributed_estimator.errors import InputError


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
