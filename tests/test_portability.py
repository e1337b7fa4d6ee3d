"""The same seed gives the same results whatever kernels BLAS and NumPy choose for a processor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import portable_values
import pytest

SCRIPT = Path(__file__).with_name("portable_values.py")
FEATURES = np._core._multiarray_umath.__cpu_features__
BEYOND_BASELINE = ("X86_V3", "X86_V4", "AVX512_ICL", "AVX512_SPR")
WITHOUT_SIMD = {"NPY_DISABLE_CPU_FEATURES": " ".join(filter(FEATURES.get, BEYOND_BASELINE))}
KERNELS = {"Sandybridge": "AVX", "Haswell": "AVX2"}
"""OpenBLAS's kernels of that name, and what a processor must have to run them."""
ENVIRONMENTS = [
    {"OPENBLAS_CORETYPE": kernel} for kernel, needed in KERNELS.items() if FEATURES.get(needed)
]


@pytest.fixture(scope="module")
def here() -> object:
    return json.loads(json.dumps(portable_values.everything()))


def values_in(environment: dict[str, str]) -> object:
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def assert_same(found: object, wanted: object, place: str = "") -> None:
    """Equal to 1e-9, number by number; what is no number is equal."""
    if isinstance(wanted, dict):
        assert isinstance(found, dict)
        assert found.keys() == wanted.keys(), place
        for key in wanted:
            assert_same(found[key], wanted[key], f"{place}/{key}")
    elif isinstance(wanted, list):
        assert isinstance(found, list)
        assert len(found) == len(wanted), place
        for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
            assert_same(one, other, f"{place}/{number}")
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, rel=1e-9, abs=1e-9), place
    else:
        assert found == wanted, place


def test_the_oldest_kernels_without_simd_give_the_same_results(here: object):
    assert_same(values_in({"OPENBLAS_CORETYPE": "Nehalem", **WITHOUT_SIMD}), here)


@pytest.mark.soak
@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=str)
def test_any_kernels_give_the_same_results(here: object, environment: dict[str, str]):
    assert_same(values_in(environment), here)
