"""Model circuits of quantum neural networks: a feature map, an ansatz and observables.

The default is the paper's model (§V-A): ZFeatureMap, RealAmplitudes, Z on every qubit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import isfinite
from string import ascii_letters
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from msgspec import Meta
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
from ..errors import InputError, ObservableError, shortened
from .settings import Config

Entanglement = Literal["linear", "circular", "full", "pairwise", "reverse_linear"]
"""Which pairs of qubits a layer joins, by Qiskit's names."""

_FORMS = "z_all, z_one, z_<qubit>, z_mean, z_each or a Pauli sum such as 0.5*ZZII - IIXX"

Repetitions = Annotated[int, Meta(ge=1, le=1000)]


@dataclass(frozen=True)
class ModelConfig(Config):
    """What a model is made of, as plain values that JSON holds.

    Two repetitions of the feature map are Qiskit's own default. With one, the two separable Iris
    classes end at a test accuracy of 0.91 instead of 1.00 (exact values, 60 Adam steps, mean of 8
    seeds).

    Attributes:
        feature_map: ZFeatureMap, ZZFeatureMap, or RY by the feature itself.
        feature_map_reps: Repetitions of the feature map; those of RY turn by so many features.
        ansatz: The part with the weights; two_local is RY and CZ.
        ansatz_reps: Repetitions of the ansatz; 1 in the paper.
        entanglement: Pairs of qubits that the ansatz joins.
        feature_map_entanglement: Pairs of qubits that a ZZ feature map joins.
        observable: z_all (the product of Z on every qubit), z_one (Z on the last qubit), z_<k> (Z
            on qubit k), z_mean (their mean), z_each (one output a qubit) or a sum of Paulis, whose
            rightmost letter is qubit 0; or several of these with commas, an output each.

    Example:
        >>> ModelConfig(feature_map="zz", observable="0.5*ZZII + 0.5*IIZZ").ansatz
        'real_amplitudes'
    """

    feature_map: Literal["z", "zz", "angle"] = "z"
    feature_map_reps: Repetitions = 2
    ansatz: Literal["real_amplitudes", "efficient_su2", "two_local"] = "real_amplitudes"
    ansatz_reps: Repetitions = 1
    entanglement: Entanglement = "linear"
    feature_map_entanglement: Entanglement = "linear"
    observable: Annotated[str, Meta(title=_FORMS)] = "z_all"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_observable(self.observable)


@dataclass(frozen=True)
class Model:
    """A parameterised circuit with its observables.

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


def _angle_map(config: ModelConfig, width: int) -> QuantumCircuit:
    circuit, features = QuantumCircuit(width), ParameterVector("x", width)
    for _ in range(config.feature_map_reps):
        for qubit, feature in enumerate(features):
            circuit.ry(feature, qubit)
    return circuit


_Builder = Callable[[ModelConfig, int], QuantumCircuit]

FEATURE_MAPS: dict[str, _Builder] = {
    "z": lambda config, width: z_feature_map(width, reps=config.feature_map_reps),
    "zz": lambda config, width: zz_feature_map(
        width, reps=config.feature_map_reps, entanglement=config.feature_map_entanglement
    ),
    "angle": _angle_map,
}
"""The feature maps by name."""

ANSATZES: dict[str, _Builder] = {
    "real_amplitudes": lambda config, width: real_amplitudes(
        width, reps=config.ansatz_reps, entanglement=config.entanglement
    ),
    "efficient_su2": lambda config, width: efficient_su2(
        width, reps=config.ansatz_reps, entanglement=config.entanglement
    ),
    "two_local": lambda config, width: n_local(
        width, "ry", "cz" if width > 1 else [], config.entanglement, reps=config.ansatz_reps
    ),
}
"""The ansätze by name."""


def _in_order(parameters: Iterable[Parameter]) -> tuple[Parameter, ...]:
    """By their place in their vector; a circuit sorts its parameters by name."""
    return tuple(sorted(parameters, key=lambda parameter: int(parameter.index)))


_ONE_Z = re.compile(r"z_([0-9]{1,6})")
_BEGIN = (r"\s*(?P<signs>[+-]?)\s*", r"\s*(?P<signs>[+-]\s*[+-]?)\s*")
"""Of the first term, and of others, which may have a sign of their own: ZZ + -0.5*XX."""
_WEIGHT = r"(?P<weight>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
_TERM = [re.compile(rf"{begin}(?:{_WEIGHT}\s*\*\s*)?(?P<letters>[IXYZ]+)\s*") for begin in _BEGIN]
_HALF = [re.compile(rf"{begin}(?:{_WEIGHT}\s*\*?\s*)?") for begin in _BEGIN]

_NAMED: dict[str, Callable[[int], tuple[SparsePauliOp, ...]]] = {
    "z_all": lambda width: (SparsePauliOp("Z" * width),),
    "z_one": lambda width: (_z_on([width - 1], width),),
    "z_mean": lambda width: (_z_on(range(width), width) / width,),
    "z_each": lambda width: tuple(_z_on([qubit], width) for qubit in range(width)),
}


def check_observable(text: str) -> None:
    """Raises InputError unless `text` says what to observe, for some number of qubits.

    Example:
        >>> check_observable("0.5*ZZII + 0.5*IIZZ")
    """
    for part in map(str.strip, text.split(",")):
        if part not in _NAMED and not _ONE_Z.fullmatch(part):
            _pauli_sum(part)


def read_observables(text: str, width: int) -> tuple[SparsePauliOp, ...]:
    """What `text` names on `width` qubits, one observable an output.

    Raises:
        ObservableError: It is no observable, or none of so many qubits.

    Example:
        >>> [observable.paulis.to_labels() for observable in read_observables("z_each, XX", 2)]
        [['IZ'], ['ZI'], ['XX']]
    """
    parts = map(str.strip, text.split(","))
    return tuple(observable for part in parts for observable in _read_one(part, width))


def _read_one(text: str, width: int) -> tuple[SparsePauliOp, ...]:
    if text in _NAMED:
        return _NAMED[text](width)
    if one := _ONE_Z.fullmatch(text):
        if int(one[1]) >= width:
            raise ObservableError(
                f"the observable {text} is not on the circuit's {width} qubits: name one of z_0 to "
                f"z_{width - 1}"
            )
        return (_z_on([int(one[1])], width),)
    terms = _pauli_sum(text)
    letters = len(next(iter(terms)))
    if letters != width:
        raise ObservableError(
            f"the observable {shortened(text)} acts on {letters} qubits, the circuit has {width}: "
            "give one Pauli letter per qubit"
        )
    return (SparsePauliOp(list(terms), list(terms.values())),)


def _z_on(qubits: Iterable[int], width: int) -> SparsePauliOp:
    return SparsePauliOp.from_sparse_list([("Z", [qubit], 1.0) for qubit in qubits], width)


def _pauli_sum(text: str) -> dict[str, float]:
    """Weights by Pauli string, like terms added up."""
    terms: dict[str, float] = {}
    place = 0
    while place < len(text) or not terms:
        match = _TERM[bool(terms)].match(text, place)
        if match is None:
            half = _HALF[bool(terms)].match(text, place)
            what = "`+`, `-` or the end" if half is None else "a real weight, `*` and I, X, Y, Z"
            raise _unread(text, place if half is None else half.end(), what)
        weight = float(match["weight"] or 1) * (-1) ** match["signs"].count("-")
        if not isfinite(weight):
            raise _unread(text, match.start("weight"), "a finite weight")
        letters, width = match["letters"], len(next(iter(terms), match["letters"]))
        if len(letters) != width:
            place = match.start("letters")
            raise _unread(text, place, f"{width} letters, as in the first term,")
        terms[letters] = terms.get(letters, 0.0) + weight
        place = match.end()
    if not any(terms.values()):
        raise ObservableError(
            f"the observable {shortened(text)} is zero: give weights that are not 0 and do not "
            "cancel"
        )
    return {letters: weight for letters, weight in terms.items() if weight}


def _unread(text: str, place: int, expected: str) -> ObservableError:
    word = re.match(r"\s*(\w{1,20}|\S)", text[place:])
    found = "the end" if word is None else f"`{word[1]}`"
    place += 0 if word is None else word.start(1)
    return ObservableError(
        f"the observable {shortened(text)} has {found} as character {place + 1}, where {expected} "
        f"is expected: give {_FORMS}"
    )
