"""What a device's noise is expected to do, against numbers computed by hand."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.circuit.library import CXGate, Measure, RZGate, SXGate
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.quantum_info import DensityMatrix, SparsePauliOp, SuperOp
from qiskit.transpiler import InstructionProperties, Target
from qiskit_addon_cutting.instructions import CutWire

from distributed_estimator import AutoCut, DistributedEstimator, EstimatorOptions, Mitigation, Zne
from distributed_estimator.backends.noise import (
    CircuitNoise,
    NoisePrice,
    Outlook,
    circuit_noise,
    noise_price,
)
from distributed_estimator.errors import BackendError, InputError

CX = {(0, 1): 0.03, (1, 2): 0.05}
READ = {0: 0.02, 1: 0.3, 2: 0.1}


def target() -> Target:
    """Three qubits in a row whose gates and readout have errors; RZ has none."""
    made = Target(num_qubits=3)
    made.add_instruction(CXGate(), {pair: InstructionProperties(error=e) for pair, e in CX.items()})
    made.add_instruction(
        Measure(), {(qubit,): InstructionProperties(error=e) for qubit, e in READ.items()}
    )
    made.add_instruction(
        SXGate(), {(qubit,): InstructionProperties(error=0.001) for qubit in range(3)}
    )
    made.add_instruction(RZGate(Parameter("t")), {(qubit,): None for qubit in range(3)})
    return made


def chain(qubits: int) -> QuantumCircuit:
    circuit = QuantumCircuit(qubits)
    circuit.ry(0.4, range(qubits))
    for qubit in range(qubits - 1):
        circuit.cx(qubit, qubit + 1)
    return circuit


def noise(kept: float, readout_kept: float) -> CircuitNoise:
    return CircuitNoise(2, 1, 1, 0.1, 0.1, kept, readout_kept)


# --- one circuit


def test_errors_of_a_circuit_multiply():
    circuit = QuantumCircuit(3, 2)
    circuit.sx(0)
    circuit.rz(0.3, 0)
    circuit.cx(0, 1)
    circuit.barrier()
    circuit.cx(1, 2)
    circuit.measure([0, 2], [0, 1])
    found = circuit_noise(circuit, target())
    assert (found.qubits, found.depth, found.gates) == (3, 2, 2)
    assert found.infidelity == pytest.approx(1 - 0.999 * 0.97 * 0.95)
    assert found.readout == pytest.approx(1 - 0.98 * 0.9)
    assert found.kept == pytest.approx((1 - 0.002) * (1 - 0.04) * (1 - 0.2 / 3))
    assert found.readout_kept == pytest.approx(0.96 * 0.8)
    # Of circuits like this one, each second measures its first bit.
    assert circuit_noise(circuit, target(), {0: 0.5}).readout_kept == pytest.approx(0.98 * 0.8)


def test_what_a_broken_gate_keeps_is_nothing():
    made = target()
    made.update_instruction_properties("cx", (0, 1), InstructionProperties(error=1.0))
    circuit = QuantumCircuit(2)
    circuit.cx(0, 1)
    found = circuit_noise(circuit, made)
    assert (found.infidelity, found.kept) == (1.0, 0.0)


def test_a_value_keeps_what_depolarising_gates_leave_of_it():
    """Three qubits in a GHZ state: each gate reaches XXX."""
    circuit = QuantumCircuit(3)
    circuit.h(0)
    state = DensityMatrix(circuit)
    for (pair, error), wanted in zip(CX.items(), ([0, 1], [1, 2]), strict=True):
        circuit.cx(*pair)
        # Mean over states of 1 - F is e: all is replaced with the probability e·d/(d-1).
        lost = error * 4 / 3
        mixed = np.outer(np.eye(4).ravel(), np.eye(4).ravel()) / 4
        channel = SuperOp((1 - lost) * np.eye(16) + lost * mixed)
        state = state.evolve(CXGate(), wanted).evolve(channel, wanted)
    value = state.expectation_value(SparsePauliOp("XXX")).real
    assert value == pytest.approx(circuit_noise(circuit, target()).kept)
    assert value < 0.95


def test_fragments_multiply():
    one = CircuitNoise(3, 5, 4, 0.1, 0.2, 0.8, 0.7)
    other = CircuitNoise(2, 7, 6, 0.3, 0.4, 0.5, 0.6)
    found = CircuitNoise.of_all([one, other])
    assert (found.qubits, found.depth, found.gates) == (3, 7, 10)
    assert found.infidelity == pytest.approx(1 - 0.9 * 0.7)
    assert found.readout == pytest.approx(1 - 0.8 * 0.6)
    assert (found.kept, found.readout_kept) == pytest.approx((0.4, 0.42))


# --- what follows


def test_biases_and_standard_errors_by_hand():
    zne = Mitigation(readout=True, zne=Zne((1, 3, 5)))
    found = noise_price(
        noise(0.8, 0.5),
        [noise(0.9, 0.5), noise(1.0, 0.8)],
        shots=100,
        value=-0.5,
        spreads=(1.0, 4.0),
        mitigations=(None, Mitigation(readout=True), zne),
    )
    assert [each.way for each in found.outlooks] == ["whole"] * 3 + ["cut"] * 3
    # The straight line through three values: 13/12, 1/3 and -5/12 of them; shots in proportion.
    left = [13 / 12 * k + k**3 / 3 - 5 / 12 * k**5 for k in (0.8, 0.9)]
    growth = 22 / 12
    biases = [1 - 0.4, 1 - 0.8, 1 - left[0], 1 - 0.36, 1 - 0.9, 1 - left[1]]
    assert [each.bias for each in found.outlooks] == pytest.approx([0.5 * b for b in biases])
    stderrs = [0.1, 0.2, 0.2 * growth, 0.2, 0.5, 0.5 * growth]
    assert [each.stderr for each in found.outlooks] == pytest.approx(stderrs)
    first = found.outlooks[0]
    assert first.error == pytest.approx(sqrt(0.3**2 + 0.1**2))
    assert found.best is found.outlooks[1]
    assert found.cut.kept == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("zne", "left", "growth"),
    [
        # Through 1, 3 and 5: 15/8, -5/4 and 3/8 of the values.
        (
            Zne((1, 3, 5), "richardson"),
            15 / 8 * 0.7 - 5 / 4 * 0.7**3 + 3 / 8 * 0.7**5,
            28 / 8,
        ),
        # Through two values the line in logarithms: 3/2 and -1/2, over what is left of each, and
        # three quarters of the shots for the first.
        (
            Zne((1, 3), "exponential"),
            1.0,
            sqrt(1.5**2 / 0.7**2 / 0.75 + 0.5**2 / 0.7**6 / 0.25),
        ),
    ],
)
def test_extrapolators_by_hand(zne: Zne, left: float, growth: float):
    found = noise_price(
        None,
        [noise(0.7, 1.0)],
        shots=1,
        value=1.0,
        spreads=(1.0, 1.0),
        mitigations=[Mitigation(zne=zne)],
    )
    (only,) = found.outlooks
    assert only.way == "cut"
    assert (only.bias, only.stderr) == pytest.approx((abs(1 - left), growth))


def outlooks(*given: tuple[str, float, float]) -> NoisePrice:
    made = tuple(Outlook(way, None, bias, stderr) for way, bias, stderr in given)
    return NoisePrice(1000, 1.0, noise(1, 1), (noise(1, 1),), made)


def test_shots_from_which_on_cutting_is_better():
    # 0.05² + 0.1²·1000/N = 0.01² + 0.2²·1000/N, so that N = 30 / 0.0024.
    assert outlooks(("whole", 0.05, 0.1), ("cut", 0.01, 0.2)).shots_to_cut == 12500
    # A cut way comes later, whose bias is larger than that of a whole one with mitigation.
    mitigated = "whole", 0.0, 0.4
    assert outlooks(("whole", 0.05, 0.1), ("cut", 0.01, 0.2), mitigated).shots_to_cut is None
    assert outlooks(("whole", 0.05, 0.1), ("cut", 0.06, 0.2)).shots_to_cut is None
    assert outlooks(("cut", 0.06, 0.2)).shots_to_cut == 1


# --- of an estimator


def test_an_estimator_tells_what_noise_costs_whole_and_cut():
    device = GenericBackendV2(4, noise_info=True, coupling_map=[[0, 1], [1, 2], [2, 3]], seed=1)
    for qubit in range(4):  # wherever circuits are laid out
        read = InstructionProperties(error=0.05)
        device.target.update_instruction_properties("measure", (qubit,), read)
    options = EstimatorOptions(seed=1)
    circuit = chain(4)
    found = DistributedEstimator("AABB", options=options).noise((circuit, "ZZZZ"), device)
    assert found.whole is not None
    assert (found.whole.qubits, found.whole.gates, found.whole.depth) == (4, 3, 3)
    assert found.cut.qubits == 2
    assert found.cut.gates == 2
    # Each half measures two qubits, and in one of five settings the end of the cut.
    for each in found.fragments:
        assert (each.qubits, each.depth) == (2, 1)
        assert each.readout == pytest.approx(1 - 0.95**3)
        assert each.readout_kept == pytest.approx(0.9**2 * (1 - 0.1 / 5))
    assert found.value == pytest.approx(
        abs(
            DistributedEstimator("A" * 4).run([(circuit, "ZZZZ")], precision=0).result()[0].data.evs
        )
    )
    assert found.whole.readout == pytest.approx(1 - 0.95**4)
    whole, cut = (next(o for o in found.outlooks if o.way == way) for way in ("whole", "cut"))
    assert 0.5 / sqrt(found.shots) < whole.stderr < 1.2 / sqrt(found.shots)
    assert whole.stderr < cut.stderr < 4 * whole.stderr
    more = DistributedEstimator("AABB", options=options).noise(
        (circuit, "ZZZZ"), device.target, shots=4 * found.shots
    )
    # Of n > 500 shots, the spread is known to about 1/√n, and pilots take less of more shots.
    assert more.outlooks[0].stderr == pytest.approx(whole.stderr / 2, rel=0.1)
    assert more.outlooks[0].bias == pytest.approx(whole.bias)


def test_marks_are_no_part_of_the_whole_circuit():
    marked = QuantumCircuit(3)
    marked.ry(0.4, range(3))
    marked.cx(0, 1)
    marked.append(CutWire(), [1])
    marked.cx(1, 2)
    device = GenericBackendV2(3, noise_info=True, seed=1)
    found = DistributedEstimator(None).noise((marked, "ZZZ"), device)
    assert found.whole is not None
    assert found.whole.gates == 2
    assert len(found.fragments) == 2


def test_what_does_not_fit_whole_is_recommended_cut():
    device = GenericBackendV2(3, noise_info=True, seed=1)
    found = DistributedEstimator(AutoCut(device)).noise((chain(4), "ZZZZ"), device)
    assert found.whole is None
    assert {each.way for each in found.outlooks} == {"cut"}
    assert found.shots_to_cut == 1
    with pytest.raises(BackendError, match="has 4 qubits, and the device 3: cut more"):
        DistributedEstimator("AAAA").noise((chain(4), "ZZZZ"), device)


def test_what_no_couplings_join_does_not_fit_whole():
    """Three qubits of which two are coupled: the whole circuit has no place, its parts do."""
    apart = target()
    split = Target(num_qubits=3)
    for name in apart.operation_names:
        own = {places: at for places, at in apart[name].items() if places != (1, 2)}
        split.add_instruction(apart.operation_from_name(name), own)
    pub = chain(3), "ZZZ"
    found = DistributedEstimator("AAB").noise(pub, split)
    assert found.whole is None
    assert {outlook.way for outlook in found.outlooks} == {"cut"}
    with pytest.raises(BackendError, match=r"fragment 0 \(3 qubits\) cannot be transpiled"):
        DistributedEstimator(None).noise(pub, split)


def test_instructions_that_a_device_lacks_are_named():
    circuit = chain(2)
    circuit.reset(0)
    circuit.cx(0, 1)
    with pytest.raises(BackendError, match=r"transpiled.*reset.*lacks an instruction"):
        DistributedEstimator("AA").noise((circuit, "ZZ"), target())


def test_wide_fragments_count_with_the_largest_value_and_spread():
    device = GenericBackendV2(22, noise_info=True, seed=1)
    observable = SparsePauliOp.from_sparse_list([("Z", [0], 2.0), ("ZZ", [0, 21], -1.0)], 22)
    found = DistributedEstimator("A" * 22).noise((chain(22), observable), device, shots=900)
    assert found.value == 3.0
    assert found.outlooks[0].stderr == pytest.approx(3.0 / 30)


def two_qubits() -> tuple[QuantumCircuit, GenericBackendV2]:
    """A small query, and a device that misreads every tenth bit."""
    circuit = QuantumCircuit(2)
    circuit.ry(0.4, [0, 1])
    circuit.cx(0, 1)
    device = GenericBackendV2(2, noise_info=True, seed=1)
    for qubit in range(2):
        read = InstructionProperties(error=0.1)
        device.target.update_instruction_properties("measure", (qubit,), read)
    return circuit, device


def test_shots_are_those_that_the_options_ask_for():
    circuit, device = two_qubits()
    pub = circuit, "ZZ"

    def shots(**options: Any) -> int:
        own = DistributedEstimator("AB", options=EstimatorOptions(seed=1, **options))
        return own.noise(pub, device).shots

    assert shots(shots=100) == 1000
    assert shots(shots_total=5000) == 5000
    price = DistributedEstimator("AB", options=EstimatorOptions(seed=1)).price([pub])
    assert shots() == price.optimal > shots(max_shots=200)
    assert shots(default_precision=0.05) < price.optimal / 4
    exact = DistributedEstimator("AB", options=EstimatorOptions(default_precision=0.0))
    with pytest.raises(InputError, match="`precision` is 0, which takes no shots: give `shots`"):
        exact.noise(pub, device)
    assert exact.noise(pub, device, shots=70).shots == 70
    with pytest.raises(InputError, match="`shots` is 1000000000001: 1000000000000 is the most"):
        exact.noise(pub, device, shots=10**12 + 1)


@pytest.mark.parametrize("options", [{}, {"shots": 100}], ids=["precision", "shots"])
def test_a_constant_has_no_error(options: dict[str, int]):
    circuit, device = two_qubits()
    estimator = DistributedEstimator("AB", options=EstimatorOptions(**options))
    assert estimator.noise((circuit, "II"), device).best.error == 0


def test_few_shots_a_circuit_leave_larger_errors_and_too_few_none():
    circuit, device = two_qubits()
    options = EstimatorOptions(seed=1)

    def stderrs(shots: int) -> list[float]:
        found = DistributedEstimator("AB", options=options).noise(
            (circuit, "ZZ"), device, shots=shots
        )
        return [own.stderr * sqrt(shots) for own in found.outlooks if own.way == "cut"]

    few, many = stderrs(60), stderrs(60_000)
    # Ten circuits of six shots each have no pilot, and the weights that the gates fix.
    assert few[0] > 1.3 * many[0]
    # Of 15 shots the last noise factor gets three, and there are ten circuits.
    assert np.isfinite(stderrs(15)).tolist() == [True, True, False]


@pytest.mark.parametrize(
    "mitigation",
    [
        Mitigation(readout=True),
        Mitigation(readout=True, zne=Zne((1, 3), "richardson")),
        Mitigation(zne=Zne((1, 3), "exponential")),
    ],
)
def test_a_price_is_what_a_mitigated_run_spends(mitigation: Mitigation):
    """Runs and prices have pilots of their own, whose spread is the tolerance."""
    circuit, device = two_qubits()
    pub, precision = (circuit, "ZZ"), 0.1
    options = EstimatorOptions(seed=1, mitigation=mitigation)
    price = DistributedEstimator("AB", device, options=options).price([pub], precision=precision)
    plain = DistributedEstimator("AB", device).price([pub], precision=precision)
    factors = len(mitigation.factors)
    assert price.circuits == factors * plain.circuits
    assert price.optimal > (1 + factors**2) / 2 * plain.optimal * 0.9
    found = DistributedEstimator("AB", device, options=options).run([pub], precision=precision)
    spent = found.result()[0].metadata
    assert spent["num_circuits"] == price.circuits
    assert price.optimal == pytest.approx(spent["shots_total"], rel=0.3)


def test_devices_of_which_nothing_is_known_are_refused():
    estimator, pub = DistributedEstimator("AABB"), (chain(4), "ZZZZ")
    with pytest.raises(InputError, match="`device` is 'manila': give a Qiskit backend"):
        estimator.noise(pub, "manila")
    with pytest.raises(InputError, match="no errors of gates"):
        estimator.noise(pub, GenericBackendV2(4, noise_info=False))
    with pytest.raises(InputError, match="`shots` is 0"):
        estimator.noise(pub, GenericBackendV2(4, noise_info=True, seed=1), shots=0)


def test_a_search_takes_the_widths_of_devices():
    devices = [GenericBackendV2(5, seed=1), GenericBackendV2(3, seed=1).target]
    assert AutoCut(devices[0]).max_qubits == 5
    assert AutoCut(devices).max_qubits == (5, 3)
    with pytest.raises(InputError, match="`max_qubits` is 0"):
        AutoCut(Target())
