"""Attacks that are too much for the memory or for a float, refused before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from distributed_estimator.analysis.accuracy import ATTACK_NAMES
from distributed_estimator.cli.main import main
from distributed_estimator.errors import InputError
from distributed_estimator.training import config
from distributed_estimator.training.config import Attack, AttackConfig
from distributed_estimator.training.robustness import gaussian


def test_draws_that_no_memory_holds_are_refused():
    message = r"`draws` is 1000000000, .* 5 magnitudes take 37.3 GiB or more, 1 GiB is the limit: g"
    with pytest.raises(InputError, match=message):
        AttackConfig(draws=10**9)
    assert AttackConfig(attacks=("fgsm", "pgd"), draws=10**9).draws == 10**9


def test_the_command_refuses_them_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["robustness", str(tmp_path), "--draws", "1000000000"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("dest: `--draws` is 1000000000")
    assert captured.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_limit_is_on_all_copies_of_all_samples(monkeypatch: pytest.MonkeyPatch):
    features, sigma = np.zeros((5, 3)), np.array([0.1, 0.2])
    monkeypatch.setattr(config, "MOST_BYTES", 8 * 2 * 7 * 5 * 3)
    assert gaussian(features, sigma, 7, (0.0, 1.0), seed=1).shape == (2, 7, 5, 3)
    with pytest.raises(InputError, match=r"`draws` is 8, .* give fewer draws, magnitudes or sampl"):
        gaussian(features, sigma, 8, (0.0, 1.0), seed=1)


@pytest.mark.parametrize("name", ["sigma", "epsilon"])
def test_magnitudes_that_overflow_are_refused(name: str):
    with pytest.raises(InputError, match=rf"`{name}\[1\]` is 1e\+200: give .* at most 1e\+06"):
        AttackConfig(**{name: (0.1, 1e200)})
    assert getattr(AttackConfig(**{name: (1e6,)}), name) == (1e6,)


def test_every_attack_has_a_name():
    assert tuple(ATTACK_NAMES) == get_args(Attack)
