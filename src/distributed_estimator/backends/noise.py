"""What a device's noise is expected to do to a circuit, whole and cut, before anything runs.

All figures follow from the errors that a device reports in its `Target`. Gates fail each by itself,
so that a circuit is without a fault with probability Π(1-e). To predict errors of values, faults
are taken as depolarising: a gate on d dimensions with the average error e keeps 1 - e·d/(d-1) of a
value, and a measured bit that is misread with probability e keeps 1-2e. Values of fragments are
multiplied, so that a cut circuit keeps the product of what its fragments do.

Left out are qubits that decohere while they wait, crosstalk, and errors that are coherent, which
add up otherwise. Faults count as if each reached every value, and of a fragment's circuits those
that measure at most slots count for all, but for what their readout keeps, which is a mean over
settings. So figures are rather too large, those of cut circuits more so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil, inf, prod, sqrt
from typing import Any, Literal

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit.library import SwapGate
from qiskit.transpiler import Target

from ..checks import described
from ..errors import InputError
from ..subexperiments import Mitigation, Zne, extrapolated

Way = Literal["whole", "cut"]

READOUT = Mitigation(readout=True)
BOTH = Mitigation(readout=True, zne=Zne())


@dataclass(frozen=True)
class CircuitNoise:
    """What a device does to circuits that are transpiled to it.

    Attributes:
        qubits: Qubits of the widest.
        depth: Two-qubit gates one after the other in the deepest.
        gates: Two-qubit gates of all.
        infidelity: Probability that a gate of any fails.
        readout: Probability that a measured bit of any is misread.
        kept: Part of an expectation value that gates leave.
        readout_kept: Part of it that the readout leaves.
    """

    qubits: int
    depth: int
    gates: int
    infidelity: float
    readout: float
    kept: float
    readout_kept: float

    @classmethod
    def of_all(cls, parts: Iterable[CircuitNoise]) -> CircuitNoise:
        """Of circuits whose values are multiplied, as those of fragments are."""
        found = list(parts)
        return cls(
            max((each.qubits for each in found), default=0),
            max((each.depth for each in found), default=0),
            sum(each.gates for each in found),
            1 - prod(1 - each.infidelity for each in found),
            1 - prod(1 - each.readout for each in found),
            prod(each.kept for each in found),
            prod(each.readout_kept for each in found),
        )


def circuit_noise(
    circuit: QuantumCircuit, target: Target, measured: Mapping[int, float] | None = None
) -> CircuitNoise:
    """What a device does to a circuit that is transpiled to it.

    An instruction counts as free of errors where the target has none for it.

    Args:
        circuit: The circuit.
        target: The device's.
        measured: Of some classical bits, the part of circuits like this one that measure them.

    Example:
        >>> from qiskit.circuit.library import CXGate
        >>> from qiskit.transpiler import InstructionProperties
        >>> target = Target(num_qubits=2)
        >>> target.add_instruction(CXGate(), {(0, 1): InstructionProperties(error=0.03)})
        >>> circuit = QuantumCircuit(2)
        >>> for _ in range(2):
        ...     _ = circuit.cx(0, 1)
        >>> noise = circuit_noise(circuit, target)
        >>> print(f"{noise.depth} {noise.infidelity:.4f} {noise.kept:.4f}")
        2 0.0591 0.9216
    """
    gates, bits, pairs = [], [], 0
    used: set[int] = set()
    kept = readout_kept = 1.0
    for item in circuit.data:
        places = tuple(circuit.find_bit(qubit).index for qubit in item.qubits)
        if item.operation.name in ("barrier", "delay"):
            continue
        used.update(places)
        error = error_of(target, item.operation.name, places)
        if item.operation.name == "measure":
            bits.append(error)
            part = (measured or {}).get(circuit.find_bit(item.clbits[0]).index, 1.0)
            readout_kept *= max(0.0, 1 - 2 * error * part)
            continue
        pairs += len(places) == 2
        dimension = 2 ** len(places)
        kept *= max(0.0, 1 - error * dimension / (dimension - 1))
        gates.append(error)
    return CircuitNoise(
        len(used),
        circuit.depth(lambda item: item.operation.name != "barrier" and len(item.qubits) == 2),
        pairs,
        1 - prod(1 - error for error in gates),
        1 - prod(1 - error for error in bits),
        kept,
        readout_kept,
    )


def target_of(device: Any) -> Target:
    """The target of a backend, or itself.

    Raises:
        InputError: It has none, or one without errors.
    """
    target = getattr(device, "target", device)
    if not isinstance(target, Target):
        raise InputError(
            f"`device` is {described(device)}: give a Qiskit backend, such as "
            "FakeManilaV2() of qiskit_ibm_runtime.fake_provider, or a Target"
        )
    names = target.operation_names
    if not any(error_of(target, name, places) for name in names for places in target[name] or ()):
        raise InputError(
            "the device's target has no errors of gates, so that its noise cannot be foretold: "
            "give one with calibration data, such as FakeManilaV2() of "
            "qiskit_ibm_runtime.fake_provider"
        )
    return target


def error_of(target: Target, name: str, places: tuple[int, ...]) -> float:
    """Probability that an instruction fails."""
    if name not in target.operation_names:
        return 0.0
    error = getattr((target[name] or {}).get(places), "error", None)
    return 0.0 if error is None or not error >= 0 else min(1.0, float(error))


def without_marks(circuit: QuantumCircuit) -> QuantumCircuit:
    """A circuit without the marks at which its wires are cut; moves become swaps."""
    whole = circuit.copy_empty_like()
    for item in circuit.data:
        if item.operation.name == "move" and len(item.qubits) == 2:
            whole.append(SwapGate(), item.qubits)
        elif item.operation.name != "cut_wire":
            whole.append(item)
    return whole


@dataclass(frozen=True)
class Outlook:
    """How far a value is likely to be off, run in one way.

    Attributes:
        way: Whether the circuit is cut.
        mitigation: What is done about the noise; None: nothing.
        bias: By noise, in the mean of ever so many runs.
        stderr: By the shots.
    """

    way: Way
    mitigation: Mitigation | None
    bias: float
    stderr: float

    @property
    def error(self) -> float:
        """By both, root mean square."""
        return sqrt(self.bias**2 + self.stderr**2)


@dataclass(frozen=True)
class NoisePrice:
    """What a device's noise is expected to cost, whole and cut, with as many shots each.

    Attributes:
        shots: Shots of each way, in all.
        value: Size of the value that noise makes smaller.
        whole: The circuit as it is; None: the device has too few qubits.
        fragments: Those of the cut circuit.
        outlooks: What follows, for every way and mitigation.
    """

    shots: int
    value: float
    whole: CircuitNoise | None
    fragments: tuple[CircuitNoise, ...]
    outlooks: tuple[Outlook, ...]

    @property
    def cut(self) -> CircuitNoise:
        """All fragments together."""
        return CircuitNoise.of_all(self.fragments)

    @property
    def best(self) -> Outlook:
        """The way with the least error; of equal ones the simplest."""
        return min(self.outlooks, key=lambda each: each.error)

    @property
    def shots_to_cut(self) -> int | None:
        """Shots from which on the way with the least error is a cut one; None: it never is."""

        def best(shots: float) -> Way:
            scale = self.shots / shots
            return min(self.outlooks, key=lambda o: o.bias**2 + scale * o.stderr**2).way

        # Where a cut way has the error of a whole one, and at both ends.
        found = {1.0}
        for cut, other in product(self.outlooks, repeat=2):
            gain, loss = other.bias**2 - cut.bias**2, cut.stderr**2 - other.stderr**2
            if gain > 0 and 0 < loss < inf:
                found.add(self.shots * loss / gain)
        places = sorted(found)
        if best(2 * places[-1]) != "cut":
            return None
        first = places[-1]
        for place, following in zip(places[-2::-1], places[:0:-1], strict=True):
            if best(sqrt(place * following)) != "cut":
                break
            first = place
        return ceil(first)


def noise_price(
    whole: CircuitNoise | None,
    fragments: Sequence[CircuitNoise],
    *,
    shots: int,
    value: float,
    spreads: tuple[float, float],
    mitigations: Sequence[Mitigation | None] = (None, READOUT, BOTH),
) -> NoisePrice:
    """How far values are likely to be off, whole and cut, with and without mitigation.

    Of a value y, gates leave the part g and the readout the part r: it is off by y(1 - gr). With
    readout mitigated it is off by y(1 - g), and its standard error is 1/r times as large.
    Extrapolated from noise factors λ with weights w, it is off by y(1 - Σ w g^λ), and its standard
    error √(Σ w²/p) times as large, where p are the levels' parts of the shots. An exponential is
    right where gates keep g^λ, as is assumed here.

    Args:
        whole: The circuit as it is; None: it does not fit.
        fragments: Those of the cut circuit.
        shots: In all, of each way.
        value: Size of the value.
        spreads: Variance times shots without noise, of the whole and of the cut circuit.
        mitigations: What may be done about the noise.
    """
    ways: list[tuple[Way, CircuitNoise | None, float]] = [
        ("whole", whole, spreads[0]),
        ("cut", CircuitNoise.of_all(fragments), spreads[1]),
    ]
    outlooks = [
        _outlook(way, own, mitigation, abs(value), sqrt(spread / shots))
        for (way, own, spread), mitigation in product(ways, mitigations)
        if own is not None
    ]
    return NoisePrice(shots, abs(value), whole, tuple(fragments), tuple(outlooks))


def _outlook(
    way: Way, noise: CircuitNoise, mitigation: Mitigation | None, value: float, stderr: float
) -> Outlook:
    """One way's bias and standard error; `stderr` is that without noise."""
    plan = mitigation or Mitigation()
    left, growth = _extrapolated(noise.kept, plan)
    readout = noise.readout_kept
    if plan.readout:
        growth = growth / readout if readout else inf
        readout = 1.0
    return Outlook(way, mitigation, value * abs(1 - left * readout), stderr * growth)


def _extrapolated(kept: float, plan: Mitigation) -> tuple[float, float]:
    """Part of a value that extrapolation leaves, and by how much the standard error grows."""
    if not isinstance(plan.zne, Zne):
        return kept, 1.0
    levels = kept ** np.array([plan.zne.factors], dtype=np.float64).T
    left, weights = extrapolated(
        plan.zne.factors, plan.zne.extrapolator, levels, np.zeros_like(levels)
    )
    parts = [level.part for level in plan.levels()]
    return float(left[0]), sqrt(float((weights[:, 0] ** 2 / parts).sum()))
