"""Model circuits of quantum neural networks: a feature map, an ansatz and what is observed.

The default is the paper's model (§V-A): ZFeatureMap, RealAmplitudes, Z on every qubit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from string import ascii_letters

import numpy as np
import numpy.typing as npt
from qiskit.circuit import Parameter, ParameterVector, QuantumCircuit
from qiskit.circuit.library import (
    efficient_su2,
    n_local,
    real_amplitudes,
    z_feature_map,
    zz_feature_map,
)
from qiskit.quantum_info import SparsePauliOp

from ..checks import check_whole
from ..errors import InputError
from .observable_text import check_observable, read_observables

ENTANGLEMENTS = ("linear", "circular", "full", "pairwise", "reverse_linear")
"""Which pairs of qubits a layer joins, by Qiskit's names."""


@dataclass(frozen=True)
class ModelConfig:
    """What a model is made of, as plain values that JSON holds.

    Attributes:
        feature_map: "z" (ZFeatureMap), "zz" (ZZFeatureMap) or "angle" (RY by the feature itself).
        feature_map_reps: Repetitions of the feature map; 2 is Qiskit's own default. With 1, the two
            separable Iris classes end at a test accuracy of 0.91 instead of 1.00 (exact values, 60
            Adam steps, mean of 8 seeds). Repeated, "angle" turns by as many times the feature.
        ansatz: "real_amplitudes", "efficient_su2" or "two_local" (RY and CZ).
        ansatz_reps: Repetitions of the ansatz; 1 in the paper.
        entanglement: Pairs of qubits that the ansatz joins, one of `ENTANGLEMENTS`.
        feature_map_entanglement: Pairs of qubits that the ZZ feature map joins.
        observable: "z_all" (the product of Z on every qubit), "z_one" (Z on the last qubit),
            "z_<k>" (Z on qubit k), "z_mean" (the mean of Z over the qubits), "z_each" (Z on every
            qubit, one output each) or a Pauli sum in Qiskit's order: the rightmost letter is
            qubit 0.

    Example:
        >>> ModelConfig(feature_map="zz", observable="0.5*ZZII + 0.5*IIZZ").ansatz
        'real_amplitudes'
    """

    feature_map: str = "z"
    feature_map_reps: int = 2
    ansatz: str = "real_amplitudes"
    ansatz_reps: int = 1
    entanglement: str = "linear"
    feature_map_entanglement: str = "linear"
    observable: str = "z_all"

    def __post_init__(self) -> None:
        _check_known("feature_map", self.feature_map, FEATURE_MAPS)
        _check_known("ansatz", self.ansatz, ANSATZES)
        _check_known("entanglement", self.entanglement, ENTANGLEMENTS)
        _check_known("feature_map_entanglement", self.feature_map_entanglement, ENTANGLEMENTS)
        check_whole("feature_map_reps", self.feature_map_reps, 1)
        check_whole("ansatz_reps", self.ansatz_reps, 1)
        check_observable(self.observable)


@dataclass(frozen=True)
class Model:
    """A parameterised circuit with what is observed of it.

    Attributes:
        circuit: Feature map followed by ansatz, one qubit a feature.
        inputs: The parameters that take the features of a sample, in their order.
        weights: The parameters that are trained, in the ansatz's order.
        observables: One per output.

    Example:
        >>> model = build_model(ModelConfig(observable="z_each"), 4)
        >>> model.num_qubits, model.num_inputs, model.num_weights, model.num_outputs
        (4, 4, 8, 4)
    """

    circuit: QuantumCircuit
    inputs: tuple[Parameter, ...]
    weights: tuple[Parameter, ...]
    observables: tuple[SparsePauliOp, ...]

    def __post_init__(self) -> None:
        if not self.observables:
            raise InputError("`observables` is empty: give one observable an output")
        for observable in self.observables:
            if observable.num_qubits != self.circuit.num_qubits:
                raise InputError(
                    f"the observable acts on {observable.num_qubits} qubits and the circuit has "
                    f"{self.circuit.num_qubits}: give one Pauli a qubit"
                )
        unknown = {*self.inputs, *self.weights} ^ set(self.circuit.parameters)
        if unknown:
            names = ", ".join(sorted(parameter.name for parameter in unknown))
            raise InputError(
                f"`inputs` and `weights` differ from the circuit's parameters: {names}"
            )

    @property
    def num_qubits(self) -> int:
        """Width of the circuit."""
        return int(self.circuit.num_qubits)

    @property
    def num_inputs(self) -> int:
        """Features a sample."""
        return len(self.inputs)

    @property
    def num_weights(self) -> int:
        """Parameters that are trained."""
        return len(self.weights)

    @property
    def num_outputs(self) -> int:
        """Expectation values a sample: 1, or one a qubit for a classical head."""
        return len(self.observables)


def build_model(config: ModelConfig, num_features: int) -> Model:
    """The model for `num_features` features, on as many qubits.

    Args:
        config: What it is made of.
        num_features: Features a sample; one qubit each.

    Raises:
        InputError: There are too few features, or the observable does not fit their number.

    Example:
        >>> model = build_model(ModelConfig(), 4)
        >>> [parameter.name for parameter in model.inputs]
        ['x[0]', 'x[1]', 'x[2]', 'x[3]']
        >>> model.observables[0].paulis.to_labels()
        ['ZZZZ']
    """
    check_whole("num_features", num_features, 1)
    if config.feature_map == "zz" and num_features < 2:
        raise InputError(
            f"the feature map zz joins pairs of features, `num_features` is {num_features}: give 2 "
            "or more, or take the feature map z or angle"
        )
    feature_map = FEATURE_MAPS[config.feature_map](config, num_features)
    ansatz = ANSATZES[config.ansatz](config, num_features)
    return Model(
        circuit=feature_map.compose(ansatz),
        inputs=_in_order(feature_map.parameters),
        weights=_in_order(ansatz.parameters),
        observables=read_observables(config.observable, num_features),
    )


def feature_range(config: ModelConfig) -> tuple[float, float]:
    """The range that features are to be scaled into, so that the encoding is one-to-one.

    A Z feature map encodes x as the phase P(2x), so [0, π/2] is half a turn. Over [0, π] the
    phase closes on itself, the smallest and the largest feature become one state, and two linearly
    separable Iris classes no longer separate. The angle map's RY(x) takes [0, π] instead. So do
    the first two repetitions of a Z map, but three turn further, and those of RY(x) add up.

    For a ZZ feature map the range is that of its single-qubit phases, P(2x) as well; its phases of
    pairs, 2(π − x)(π − y), turn further.

    Example:
        >>> [round(feature_range(ModelConfig(feature_map_reps=reps))[1], 3) for reps in (1, 2, 3)]
        [1.571, 1.571, 1.047]
        >>> round(feature_range(ModelConfig("angle", feature_map_reps=1))[1], 3)
        3.142
    """
    reps = config.feature_map_reps
    turns = reps if config.feature_map == "angle" else max(2, reps)
    return 0.0, float(np.pi / turns)


def initial_weights(model: Model, seed: int) -> npt.NDArray[np.float64]:
    """Starting weights, uniform in [-π, π): a function of the seed alone, whatever is cut."""
    return np.random.default_rng(seed).uniform(-np.pi, np.pi, model.num_weights)


def labels_for_cuts(num_qubits: int, num_cuts: int) -> str:
    """One label a qubit, in contiguous blocks, so that a linear chain is cut `num_cuts` times.

    Blocks are as even as they can be, the larger ones first. The number of cuts is that of places
    along the chain; a place costs one cut for each gate across it, that is one for each repetition
    of a linear ansatz and of a linear ZZ feature map, and more for other entanglement.

    Raises:
        InputError: If the chain cannot be cut that often.

    Example:
        >>> [labels_for_cuts(4, cuts) for cuts in range(4)]
        ['AAAA', 'AABB', 'AABC', 'ABCD']
    """
    most = min(num_qubits, len(ascii_letters)) - 1
    if not 0 <= num_cuts <= most:
        raise InputError(
            f"`num_cuts` is {num_cuts}, and a chain of {num_qubits} qubits takes 0 to {most} cuts: "
            f"give a number in that range"
        )
    blocks = np.array_split(np.arange(num_qubits), num_cuts + 1)
    # Upper case first: `AABC` reads better than `aabc`.
    letters = ascii_letters.swapcase()
    return "".join(letter * len(block) for letter, block in zip(letters, blocks, strict=False))


def _z_map(config: ModelConfig, width: int) -> QuantumCircuit:
    return z_feature_map(width, reps=config.feature_map_reps)


def _zz_map(config: ModelConfig, width: int) -> QuantumCircuit:
    return zz_feature_map(
        width, reps=config.feature_map_reps, entanglement=config.feature_map_entanglement
    )


def _angle_map(config: ModelConfig, width: int) -> QuantumCircuit:
    circuit, features = QuantumCircuit(width), ParameterVector("x", width)
    for _ in range(config.feature_map_reps):
        for qubit, feature in enumerate(features):
            circuit.ry(feature, qubit)
    return circuit


def _real_amplitudes(config: ModelConfig, width: int) -> QuantumCircuit:
    return real_amplitudes(width, reps=config.ansatz_reps, entanglement=config.entanglement)


def _efficient_su2(config: ModelConfig, width: int) -> QuantumCircuit:
    return efficient_su2(width, reps=config.ansatz_reps, entanglement=config.entanglement)


def _two_local(config: ModelConfig, width: int) -> QuantumCircuit:
    pairs = "cz" if width > 1 else []
    return n_local(width, "ry", pairs, config.entanglement, reps=config.ansatz_reps)


_Builder = Callable[[ModelConfig, int], QuantumCircuit]

FEATURE_MAPS: dict[str, _Builder] = {"z": _z_map, "zz": _zz_map, "angle": _angle_map}
"""The feature maps by name."""

ANSATZES: dict[str, _Builder] = {
    "real_amplitudes": _real_amplitudes,
    "efficient_su2": _efficient_su2,
    "two_local": _two_local,
}
"""The ansätze by name."""


def _in_order(parameters: Iterable[Parameter]) -> tuple[Parameter, ...]:
    """By their place in their vector; a circuit sorts its parameters by name."""
    return tuple(sorted(parameters, key=lambda parameter: int(parameter.index)))


def _check_known(name: str, value: object, known: Iterable[str]) -> None:
    if value not in list(known):
        raise InputError(f"`{name}` is {value!r}: give one of {', '.join(known)}")
