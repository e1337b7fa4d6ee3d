"""Wide fragments: compiled kernels against NumPy, their gradients against shifted copies."""

from __future__ import annotations

import logging
import os
import threading

import numpy as np
import pytest
from helpers import entangled, random_paulis
from numpy.testing import assert_allclose
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import UnitaryGate, efficient_su2
from qiskit.quantum_info import SparsePauliOp, random_unitary
from qiskit_addon_cutting.instructions import CutWire

from distributed_estimator import DistributedEstimator
from distributed_estimator.backends import wide
from distributed_estimator.backends.statevector import Program, StatevectorBackend
from distributed_estimator.backends.wide import NARROWEST, WideProgram
from distributed_estimator.cutting import CutPlan
from distributed_estimator.gradient import FragmentGradient
from distributed_estimator.pipeline import pipeline
from distributed_estimator.subexperiments import (
    AdjointTask,
    AdjointWork,
    FragmentExperiment,
    adjoint,
    adjoint_pays,
)

WIDTH = NARROWEST
TOLERANCE = 1e-12


def circuit_of(num_qubits: int) -> QuantumCircuit:
    """Chains, diagonals, wide gates, several frequencies, parameters of several gates."""
    theta = ParameterVector("t", 4)
    circuit = QuantumCircuit(num_qubits)
    circuit.compose(efficient_su2(num_qubits, reps=1, entanglement="linear"), inplace=True)
    circuit.crx(theta[0], 4, 7)
    circuit.rzz(2 * theta[1] * theta[0], 5, 7)
    circuit.cu(0.3, theta[2], 0.1, theta[3], 4, 5)
    circuit.ccx(6, 7, 8)
    circuit.append(UnitaryGate(random_unitary(32, seed=1)), [8, 1, 5, 3, 6])
    circuit.rx(theta[2], 8)
    circuit.ry(theta[3] + 0.2, 6)
    return circuit


def pub_of(circuit: QuantumCircuit, seed: int = 0) -> tuple[QuantumCircuit, list[object], object]:
    width = circuit.num_qubits
    paulis = random_paulis(width, 3, seed)
    observables = [SparsePauliOp(paulis, [1.0, -0.5, 0.7]), "I" * (width - 1) + "Z"]
    values = np.random.default_rng(seed).uniform(-2, 2, circuit.num_parameters)
    return circuit, observables, values


def cut_chain() -> tuple[QuantumCircuit, str]:
    """A wide fragment in the middle, with slots of two and of four operators and of wires."""
    circuit = circuit_of(WIDTH + 2)
    circuit.cz(0, WIDTH)
    circuit.iswap(2, WIDTH + 1)
    circuit.append(CutWire(), [0])
    circuit.rx(0.4, 0)
    circuit.cx(0, WIDTH)
    return circuit, "A" * WIDTH + "BB"


# --- the same tensors -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_tensors_are_those_of_numpy(seed):
    """With slots, in several bases, at several rows."""
    circuit, labels = cut_chain()
    plan = CutPlan.build(circuit, labels)
    rng = np.random.default_rng(seed)
    values = rng.uniform(-2, 2, (2, circuit.num_parameters))
    angles = plan.normal.angles.evaluate(values)
    wide_ones = [f for f in plan.fragments if f.num_qubits >= NARROWEST]
    assert wide_ones
    for fragment in wide_ones:
        assert fragment.slots
        letters = rng.choice(list("XYZ"), (3, fragment.num_qubits))
        paulis = tuple(
            tuple(enumerate(map(str, row)))[: 2 + 4 * n] for n, row in enumerate(letters)
        )
        groups = FragmentExperiment(fragment, ((), *paulis), "full").groups
        own = angles[:, fragment.angles]
        found, narrow = WideProgram(fragment).tensors(own, groups), Program(fragment)
        states = narrow.run(own)
        for group, tensor in zip(groups, found, strict=True):
            assert_allclose(tensor, narrow.coordinates(states, group), atol=TOLERANCE)


def test_every_pass_takes_gates_that_fit_its_buffer():
    circuit = entangled(14, 3)
    (fragment,) = CutPlan.build(circuit, "A" * 14).fragments
    passes = WideProgram(fragment)._steps
    assert all(len(one.layout[2]) <= 12 for one in passes)
    assert len(passes) < sum(len(one.wanted) for one in passes) < len(fragment.steps)


# --- gradients ------------------------------------------------------------------------------------


def gradients(pub, labels, monkeypatch, *, backwards, some=None, **options):
    """Values and derivatives; with adjoint differentiation, which is used, or without.

    Copies are shifted for `some` of the parameters.
    """
    calls = []
    original = StatevectorBackend.gradient

    def watched(self, experiment, angles, vector):
        calls.append(experiment)
        return original(self, experiment, angles, vector)

    with monkeypatch.context() as patch:
        patch.setattr(StatevectorBackend, "gradient", watched)
        if not backwards:
            patch.setattr(pipeline, "adjoint_pays", lambda *_: False)
        with DistributedEstimator(labels, **options) as estimator:
            found = FragmentGradient(estimator, precision=0).values_and_gradients(pub, some)
    assert bool(calls) == backwards or options.get("pool") == "processes"
    return found


@pytest.mark.parametrize("cut", [False, True])
def test_gradients_are_those_of_shifted_copies(cut, monkeypatch):
    circuit, labels = cut_chain() if cut else (circuit_of(WIDTH), "A" * WIDTH)
    pub = pub_of(circuit)
    values, slopes = gradients(pub, labels, monkeypatch, backwards=True)
    places = [*range(4), *range(4, circuit.num_parameters, 9)]  # those of "t" come first
    some = [circuit.parameters[place] for place in places]
    others, expected = gradients(pub, labels, monkeypatch, backwards=False, some=some)
    assert np.abs(expected).max() > 0.01
    assert_allclose(values, others, atol=TOLERANCE)
    assert_allclose(slopes[:, places], expected, atol=TOLERANCE)


@pytest.mark.soak
@pytest.mark.parametrize("pool", ["threads", "processes"])
def test_gradients_have_the_same_bits_on_every_pool(pool, monkeypatch):
    pub = pub_of(circuit_of(WIDTH))
    here = gradients(pub, "A" * WIDTH, monkeypatch, backwards=True, workers=1)
    there = gradients(pub, "A" * WIDTH, monkeypatch, backwards=True, pool=pool, workers=2)
    assert all(np.array_equal(one, other) for one, other in zip(here, there, strict=True))


def test_copies_are_shifted_where_going_back_takes_more():
    (narrow,) = CutPlan.build(entangled(4, 1), "AAAA").fragments
    (broad,) = CutPlan.build(entangled(WIDTH, 1), "A" * WIDTH).fragments
    backend = StatevectorBackend()
    pays = [
        adjoint_pays(backend, experiment, np.zeros((1, 0)), rows, products)
        for experiment in (
            FragmentExperiment(fragment, (((0, "Z"),),), "full") for fragment in (narrow, broad)
        )
        for rows, products in ((1000, 1), (4 * adjoint.COPIES, 4), (4 * adjoint.COPIES + 1, 4))
    ]
    assert pays == [False, False, False, True, False, True]


def test_a_wrong_result_is_refused_and_named():
    (fragment,) = CutPlan.build(circuit_of(WIDTH), "A" * WIDTH).fragments
    work = AdjointWork(StatevectorBackend(), (FragmentExperiment(fragment, ((),), "full"),))
    task = AdjointTask(0, 3, np.zeros(len(fragment.angles)), np.ones((1, 1)))
    assert work.check(task, (np.zeros(len(fragment.angles)),)) is None
    assert "shape (1,) instead of" in str(work.check(task, (np.zeros(1),)))
    assert work.describe(task) == "derivatives of fragment 0, binding 3"


# --- compiled code --------------------------------------------------------------------------------


def test_kernels_are_compiled_where_nothing_can_be_kept(monkeypatch, caplog):
    """As in an installation that cannot be written, of a user without a home."""
    asked, kernels = [], wide.kernels()

    def njit(signature, *, cache=False, **options):
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function")
        return lambda function: function

    monkeypatch.setattr(kernels, "njit", njit)
    with caplog.at_level(logging.INFO, logger=kernels.__name__):
        assert kernels._compiled("void()")(len) is len
    assert asked == [True, False]
    assert "cannot cache function" in caplog.text


def test_a_fork_waits_for_the_compiler():
    """A kernel that another thread has half compiled would stay so in the fork."""
    held, may_fork = threading.Event(), threading.Event()

    def compile_for_a_while():
        with wide._importing:
            held.set()
            may_fork.wait(60)

    thread = threading.Thread(target=compile_for_a_while)
    thread.start()
    held.wait(60)
    assert not wide._importing.acquire(blocking=False)
    may_fork.set()
    child = os.fork()  # would return with the lock held for ever, were it not waited for
    if child == 0:
        os._exit(0 if wide._importing.acquire(blocking=False) else 1)
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
