"""Models: what they are made of, and that every combination is exact however it is cut."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import product
from typing import get_args

import numpy as np
import pytest
from helpers import reference
from qiskit.quantum_info import SparsePauliOp, Statevector

from distributed_estimator import (
    AutoCut,
    DistributedEstimator,
    EstimatorOptions,
    FragmentGradient,
)
from distributed_estimator.cutting import CutPlan
from distributed_estimator.errors import InputError, ObservableError, PlanTooLargeError
from distributed_estimator.training.models import (
    ANSATZES,
    FEATURE_MAPS,
    Entanglement,
    Model,
    ModelConfig,
    build_model,
    feature_range,
    initial_weights,
    labels_for_cuts,
)

OBSERVABLES = {
    2: ("z_all", "z_one", "z_0", "z_mean", "z_each", "0.5*ZX - 1.5*YI + IZ"),
    4: ("z_all", "z_one", "z_2", "z_mean", "z_each", "0.5*ZZII + 0.5*IIZZ - XYXI"),
}
ENTANGLEMENTS = get_args(Entanglement)
KINDS = list(product(FEATURE_MAPS, ANSATZES, ENTANGLEMENTS))
ALL_PAIRS = ModelConfig(
    "zz", 1, entanglement="full", feature_map_entanglement="full", observable="z_mean"
)
LOOP = replace(ALL_PAIRS, entanglement="circular", feature_map_entanglement="circular")


def of_kind(kind: tuple[str, str, str], **changes: object) -> ModelConfig:
    """One repetition of everything, with the same entanglement in both parts."""
    feature_map, ansatz, entanglement = kind
    config = ModelConfig(feature_map, 1, ansatz, 1, entanglement, entanglement)
    return replace(config, **changes)


def values_for(model: Model, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-2, 2, model.num_inputs + model.num_weights)


def estimator_of(cuts: object, **options: object) -> DistributedEstimator:
    return DistributedEstimator(cuts, workers=1, options=EstimatorOptions(**options))


def estimate(model: Model, observables: object, cuts: object, values: object, **options: object):
    pub = (model.circuit, observables, values)
    return estimator_of(cuts, **options).run([pub]).result()[0]


# --- what a model is made of


def test_the_default_is_the_papers_model():
    model = build_model(ModelConfig(), 4)
    assert [p.name for p in model.inputs] == [f"x[{i}]" for i in range(4)]
    assert [p.name for p in model.weights] == [f"θ[{i}]" for i in range(8)]
    assert model.observables == (SparsePauliOp("ZZZZ"),)
    assert model.circuit.count_ops() == {"h": 8, "p": 8, "ry": 8, "cx": 3}


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_parameters_are_in_the_order_of_features_and_layers(kind: tuple[str, str, str]):
    """Also with more than ten of them, where names sort otherwise; each input feeds its qubit."""
    model = build_model(of_kind(kind), 12)
    assert [p.index for p in model.inputs] == list(range(12))
    assert [p.index for p in model.weights] == list(range(model.num_weights))
    assert model.num_weights == (48 if kind[1] == "efficient_su2" else 24)
    for item in model.circuit.data:
        names = {p.name for angle in item.params for p in getattr(angle, "parameters", ())}
        if len(names) == 1 and item.operation.name in {"p", "ry"} and names.pop()[0] == "x":
            qubit = model.circuit.find_bit(item.qubits[0]).index
            assert item.params[0].parameters == {model.inputs[qubit]}


def test_repetitions_and_entanglement_change_the_circuit():
    def gates(**changes: object) -> int:
        counts = build_model(replace(ModelConfig(), **changes), 4).circuit.count_ops()
        return counts.get("cx", 0) + counts.get("cz", 0)

    assert [gates(entanglement=name) for name in ENTANGLEMENTS] == [3, 4, 6, 3, 3]
    assert [gates(ansatz_reps=reps) for reps in (1, 2, 3)] == [3, 6, 9]
    assert [gates(ansatz=name) for name in ANSATZES] == [3, 3, 3]
    pairs = [
        (gates(feature_map="zz", feature_map_reps=1, feature_map_entanglement=name) - 3) // 2
        for name in ENTANGLEMENTS
    ]
    assert pairs == [3, 4, 6, 3, 3]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("z_all", [["ZZZ"]]),
        ("z_one", [["ZII"]]),
        ("z_0", [["IIZ"]]),
        ("z_2", [["ZII"]]),
        ("z_mean", [["IIZ", "IZI", "ZII"]]),
        ("z_each", [["IIZ"], ["IZI"], ["ZII"]]),
        ("XYZ", [["XYZ"]]),
    ],
)
def test_named_observables(text: str, expected: list[list[str]]):
    model = build_model(ModelConfig(observable=text), 3)
    assert [o.paulis.to_labels() for o in model.observables] == expected
    assert model.num_outputs == len(expected)
    weights = {float(c.real) for o in model.observables for c in o.coeffs}
    assert weights == {1 / 3 if text == "z_mean" else 1.0}


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("0.5*ZZ + 0.5*XX", {"ZZ": 0.5, "XX": 0.5}),
        ("-ZZ", {"ZZ": -1}),
        ("  + 2 * ZI-IZ ", {"ZI": 2, "IZ": -1}),
        ((" \t\n" * 500).join(["", "0.5", "*", "ZZ", "-", "XX", ""]), {"ZZ": 0.5, "XX": -1}),
        ("1e-1*ZZ - .5*XX + 3.*YY", {"ZZ": 0.1, "XX": -0.5, "YY": 3}),
        ("ZZ + ZZ - 0.5*ZZ + XX - XX", {"ZZ": 1.5}),
        ("2*II + ZZ", {"II": 2, "ZZ": 1}),
        ("ZZ + -2e+0*XX - -YY-+IZ", {"ZZ": 1, "XX": -2, "YY": 1, "IZ": -1}),
    ],
)
def test_pauli_sums_are_read(text: str, terms: dict[str, float]):
    (found,) = build_model(ModelConfig(observable=text), 2).observables
    assert dict(zip(found.paulis.to_labels(), found.coeffs.real, strict=True)) == terms


@pytest.mark.parametrize("feature_map", ["z", "angle"])
@pytest.mark.parametrize("reps", [1, 2, 3, 4, 5])
def test_features_within_the_range_are_told_apart(feature_map: str, reps: int):
    """On one qubit of the map, no two features a tenth of the range apart give one state."""
    config = ModelConfig(feature_map, reps, observable="z_0")
    model = build_model(config, 1)
    low, high = feature_range(config)
    bound = model.circuit.assign_parameters(dict.fromkeys(model.weights, 0.0))
    points = np.linspace(low, high, 60)
    states = np.array([Statevector(bound.assign_parameters([x])).data for x in points])
    fidelity = np.abs(states.conj() @ states.T) ** 2
    apart = np.abs(np.subtract.outer(np.arange(60), np.arange(60))) >= 6
    assert fidelity[apart].max() < 0.99


def test_initial_weights_depend_on_the_seed_alone():
    model = build_model(ModelConfig(), 4)
    assert np.array_equal(initial_weights(model, 3), initial_weights(model, 3))
    assert not np.array_equal(initial_weights(model, 3), initial_weights(model, 4))


@pytest.mark.parametrize("num_qubits", [1, 2, 4, 7])
def test_labels_cut_the_model_as_often_as_asked(num_qubits: int):
    circuit = build_model(ModelConfig(), num_qubits).circuit
    for cuts in range(num_qubits):
        label = labels_for_cuts(num_qubits, cuts)
        plan = CutPlan.build(circuit, label)
        assert (plan.num_cuts, plan.num_fragments) == (cuts, cuts + 1)
        sizes = [label.count(letter) for letter in dict.fromkeys(label)]
        assert sum(sizes) == num_qubits
        assert max(sizes) - min(sizes) <= 1


# --- every combination, cut


def assert_every_observable_is_exact(kind: tuple[str, str, str], width: int):
    """Labels for every number of cuts, all observables at once."""
    models = [build_model(of_kind(kind, observable=text), width) for text in OBSERVABLES[width]]
    model, observables = models[0], [o for m in models for o in m.observables]
    values = values_for(model)
    expected = [reference(model.circuit, o, values) for o in observables]
    for cuts in range(width):
        label = labels_for_cuts(width, cuts)
        result = estimate(model, observables, label, values, default_precision=0)
        assert np.abs(result.data.evs - expected).max() <= 1e-10, label
        assert (result.metadata["num_cuts"] == 0) == (cuts == 0)


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_every_model_of_two_qubits_is_exact_however_it_is_cut(kind: tuple[str, str, str]):
    assert_every_observable_is_exact(kind, 2)


CHOSEN = [kind for number, kind in enumerate(KINDS) if number % 4 == 0 or kind[0] == "zz"]


@pytest.mark.parametrize("kind", CHOSEN, ids="-".join)
def test_models_of_four_qubits_are_exact_however_they_are_cut(kind: tuple[str, str, str]):
    assert_every_observable_is_exact(kind, 4)


@pytest.mark.parametrize("config", [ALL_PAIRS, LOOP], ids=["all pairs", "loop"])
@pytest.mark.parametrize("cuts", [None, AutoCut(2, seed=1), AutoCut(3, seed=1)])
def test_models_with_cuts_that_are_searched_for(config: ModelConfig, cuts: AutoCut | None):
    model = build_model(config, 4)
    values = values_for(model)
    result = estimate(model, model.observables[0], cuts, values, default_precision=0)
    assert abs(result.data.evs - reference(model.circuit, model.observables[0], values)) <= 1e-10


def test_a_batch_through_symbolic_cuts():
    """One plan and one core per binding."""
    model = build_model(replace(ALL_PAIRS, entanglement="linear"), 4)
    values = np.random.default_rng(1).uniform(-2, 2, (5, 12))
    result = estimate(model, model.observables[0], "AABB", values, default_precision=0)
    expected = [reference(model.circuit, model.observables[0], row) for row in values]
    assert np.abs(result.data.evs - expected).max() <= 1e-10
    assert result.metadata["num_cuts"] == 5


# --- gradients


@pytest.mark.parametrize(
    "config",
    [
        replace(ALL_PAIRS, entanglement="linear"),
        replace(LOOP, ansatz="two_local", feature_map="angle", observable="ZZII - 0.5*IXXI"),
    ],
    ids=["all pairs", "two_local"],
)
def test_slopes_equal_finite_differences(config: ModelConfig):
    """By inputs and weights, against central differences of the uncut state vector."""
    model = build_model(config, 4)
    (observable,), values = model.observables, values_for(model)
    estimator = estimator_of("AABC", default_precision=0)
    found = FragmentGradient(estimator).run([model.circuit], [observable], [values]).result()
    expected = [
        reference(model.circuit, observable, values + step)
        - reference(model.circuit, observable, values - step)
        for step in 1e-5 * np.eye(len(values))
    ]
    assert np.abs(found.gradients[0] - np.array(expected) / 2e-5).max() <= 1e-6


# --- what does not fit


@pytest.mark.parametrize(
    ("width", "label", "cuts"), [(6, "AAABBB", 19), (24, 12 * "A" + 12 * "B", 289)]
)
def test_too_many_cuts_are_refused_quickly_with_their_cost(width: int, label: str, cuts: int):
    """Hundreds before a path of contraction is sought."""
    model = build_model(ModelConfig("zz", 2, feature_map_entanglement="full"), width)
    started = time.monotonic()
    match = (
        rf"the plan needs .* of memory, the limit is .*slots, .*number of cuts {cuts}, "
        r"circuits a binding [0-9.e+]+, sampling overhead [0-9.e+]+\); cut fewer gates"
    )
    with pytest.raises(PlanTooLargeError, match=match):
        estimate(model, model.observables[0], label, values_for(model), shots=10)
    assert time.monotonic() - started < 20


# --- bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"feature_map": "zzz"}, "`feature_map` is 'zzz': give one of z, zz, angle"),
        ({"entanglement": ["linear"]}, r"`entanglement` is \['linear'\]: give one of linear"),
        ({"feature_map_reps": 0}, "`feature_map_reps` is 0: give a whole number of at least 1"),
        ({"ansatz_reps": True}, "`ansatz_reps` is True: give a whole number"),
        ({"observable": 3}, "`observable` is 3: give z_all, z_one, z_<qubit>, z_mean, z_each or"),
    ],
)
def test_a_configuration_out_of_range_is_refused(change: dict[str, object], message: str):
    with pytest.raises(InputError, match=message):
        ModelConfig(**change)


NO_OBSERVABLES = (
    "z_ z_-1 z_last Z_ALL zzii 0.5* ZZ*0.5 0.5*0.5*ZZ 0.5j*ZZ (1+2j)*ZZ 1_000*ZZ nan*ZZ ZQ"
)


@pytest.mark.parametrize(
    "text", ["", " ", "ZZ +", "0.5*ZZ + 0.5*", "ZZ; import os", "٣*ZZ", *NO_OBSERVABLES.split()]
)
def test_text_that_is_no_observable_is_refused(text: str):
    match = r"the observable .* as character \d+, where .* is expected: give z_all.* or a Pauli sum"
    with pytest.raises(ObservableError, match=match):
        ModelConfig(observable=text)


@pytest.mark.parametrize(
    ("text", "found", "place", "expected"),
    [
        ("ZZ + 0.5*Q", "`Q`", 10, "a real weight"),
        ("0.5 ZZ", "`ZZ`", 5, r"`\*`"),
        ("ZZ XX", "`XX`", 4, "`\\+`, `-` or the end"),
        ("ZZ -", "the end", 5, "a real weight"),
        ("--ZZ", "`-`", 2, "a real weight"),
        ("ZZ + 0.5j*XX", "`j`", 9, r"`\*`"),
        ("ZZ + inf*XX", "`inf`", 6, "a real weight"),
        ("1e999*ZZ", "`1e999`", 1, "a finite weight"),
        ("ZZII + ZZ", "`ZZ`", 8, "4 letters, as in the first term"),
        ("1" * 50_000, "the end", 50_001, "a real weight"),
        ("ZZ" + " " * 50_000 + "ZZ", "`ZZ`", 50_003, "or the end"),
        ("+" * 50_000, r"`\+`", 2, "a real weight"),
    ],
)
def test_the_message_says_where_a_text_goes_wrong(text: str, found: str, place: int, expected: str):
    """At once, however long the text is."""
    with pytest.raises(ObservableError, match=f"has {found} as character {place}, .*{expected}"):
        ModelConfig(observable=text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0*ZZZZ", "is zero: give weights that are not 0 and do not cancel"),
        ("ZZZZ - ZZZZ", "is zero"),
        ("ZZZ", "acts on 3 qubits, the circuit has 4: give one Pauli letter per qubit"),
        ("z_4", "z_4 is not on the circuit's 4 qubits: name one of z_0 to z_3"),
    ],
)
def test_an_observable_that_does_not_fit_is_refused(text: str, message: str):
    with pytest.raises(ObservableError, match=message):
        build_model(ModelConfig(observable=text), 4)


@pytest.mark.parametrize("count", [0, -2, 2.0, "4", None])
def test_a_model_of_nothing_is_refused(count: object):
    with pytest.raises(
        InputError, match=r"`num_features` is .*: give a whole number of at least 1"
    ):
        build_model(ModelConfig(), count)


def test_a_feature_map_of_pairs_needs_two_features():
    with pytest.raises(InputError, match="zz joins pairs of features, `num_features` is 1: give 2"):
        build_model(ModelConfig("zz"), 1)


@pytest.mark.parametrize("entanglement", ENTANGLEMENTS)
@pytest.mark.parametrize("ansatz", list(ANSATZES))
def test_one_qubit_has_no_pairs_whatever_the_entanglement(ansatz: str, entanglement: str):
    model = build_model(ModelConfig(ansatz=ansatz, entanglement=entanglement), 1)
    assert model.circuit.num_nonlocal_gates() == 0


def test_a_model_whose_parts_do_not_fit_is_refused():
    model = build_model(ModelConfig(), 4)
    with pytest.raises(InputError, match="acts on 3 qubits and the circuit has 4"):
        replace(model, observables=build_model(ModelConfig(), 3).observables)
    with pytest.raises(InputError, match="`observables` is empty: give one"):
        replace(model, observables=())
    with pytest.raises(InputError, match=r"differ from the circuit's parameters: θ\[7\]"):
        replace(model, weights=model.weights[:-1])


@pytest.mark.parametrize(("num_qubits", "cuts"), [(4, 4), (4, -1), (100, 60)])
def test_labels_for_more_cuts_than_there_can_be_are_refused(num_qubits: int, cuts: int):
    with pytest.raises(InputError, match=f"`num_cuts` is {cuts}, and a chain of {num_qubits}"):
        labels_for_cuts(num_qubits, cuts)
