"""What a run takes before it runs, what earlier runs are good for, and plans in odd places."""

from __future__ import annotations

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.circuit.library import efficient_su2, real_amplitudes
from qiskit.primitives import BaseSamplerV2, StatevectorSampler

from distributed_estimator import (
    AutoCut,
    DistributedEstimator,
    EstimatorOptions,
    FragmentGradient,
)
from distributed_estimator.backends.sampler import SamplerBackend
from distributed_estimator.errors import InputError, PrecisionWarning
from distributed_estimator.execution import LargestInfluenceFirst, Policy
from distributed_estimator.pipeline import Price

CIRCUIT = real_amplitudes(4, reps=2, entanglement="linear")
POINT = np.random.default_rng(1).uniform(-3, 3, CIRCUIT.num_parameters)


def estimator(labels="AABB", backend=None, journal=None, **options):
    options = EstimatorOptions(**{"seed": 1, **options})
    return DistributedEstimator(labels, backend, workers=2, options=options, journal=journal)


def exact(points, observable="ZZZZ"):
    result = estimator().run([(CIRCUIT, observable, points)], precision=0).result()
    return np.asarray(result[0].data.evs)


# --- prices


def test_a_price_is_about_what_a_run_takes():
    pub = CIRCUIT, "ZZZZ", POINT
    for limit in ({}, {"shots": 7}, {"shots_total": 5000}, {"max_shots": 5000}):
        price = estimator(**limit).price([pub], precision=0.02)
        assert 0 < price.optimal < price.neyman < price.uniform < price.quasi_probability
        taken = estimator().run([pub], precision=0.02).result()[0].metadata
        assert price.circuits == taken["num_circuits"]
        assert 0.7 <= taken["shots_total"] / price.optimal <= 1.4  # pilots differ


def test_prices_of_several_circuits_add_up():
    pub = CIRCUIT, "ZZZZ", POINT
    other = CIRCUIT.copy(), "ZZZZ", POINT
    one, both = (estimator().price(pubs, precision=0.05) for pubs in ([pub], [pub, other]))
    assert both.circuits == 2 * one.circuits
    assert both.quasi_probability == pytest.approx(2 * one.quasi_probability)
    assert estimator().price([]) == Price(0, 0, 0, 0, 0.0)


def test_values_with_shots_of_their_own_have_their_own_price():
    pub = CIRCUIT, ["ZZZZ", "ZZZZ"], POINT
    shared, apart = (
        estimator().price([pub], precision=0.05, independent=own) for own in (False, True)
    )
    assert apart.circuits == 2 * shared.circuits
    assert apart.optimal >= 1.5 * shared.optimal


@pytest.mark.parametrize("precision", [0, -1, float("nan"), "5", True])
def test_a_price_needs_a_positive_precision(precision):
    with pytest.raises(InputError, match="precision"):
        estimator().price([(CIRCUIT, "ZZZZ", POINT)], precision=precision)


def test_dear_circuits_are_left_out_and_values_stay_unbiased():
    """120 values, whose mean error is normal with 1/√120; 5 of these are exceeded once in 10⁶."""
    points = np.tile(POINT, (120, 1))
    pub = CIRCUIT, "ZZZZ", points
    plain, dear = (
        estimator(circuit_overhead=overhead)
        .run([pub], precision=0.05, independent=True)
        .result()[0]
        for overhead in (0, 1000)
    )
    assert dear.metadata["num_subexperiments"] < plain.metadata["num_subexperiments"]
    z = (dear.data.evs - exact(POINT)) / dear.data.stds
    assert abs(z.mean()) < 5 / np.sqrt(120)
    assert (dear.data.stds <= 0.05).all()


def layers(qubits, pairs, angle, reps=1):
    """RY on every qubit at random, and RZZ on pairs, in turns."""
    rng, circuit = np.random.default_rng(qubits + len(pairs)), QuantumCircuit(qubits)
    for layer in range(reps + 1):
        for qubit in range(qubits):
            circuit.ry(rng.uniform(-np.pi, np.pi), qubit)
        for one, other in pairs if layer < reps else []:
            circuit.rzz(angle, one, other)
    return circuit


def bound(ansatz):
    values = np.random.default_rng(2).uniform(-np.pi, np.pi, ansatz.num_parameters)
    return ansatz.assign_parameters(values)


def ghz(qubits):
    circuit = QuantumCircuit(qubits)
    circuit.h(0)
    for qubit in range(qubits - 1):
        circuit.cx(qubit, qubit + 1)
    return circuit


def chain_of(qubits):
    return [(qubit, qubit + 1) for qubit in range(qubits - 1)]


TREE = [(0, 1), (0, 2), (1, 3), (1, 4), (2, 5), (2, 6)]
PRICED = {
    "chain of 8": (layers(8, chain_of(8), np.pi / 2), 3),
    "chain of 10": (layers(10, chain_of(10), np.pi / 2), 3),
    "weak chain": (layers(8, chain_of(8), 0.3), 4),
    "two weak layers": (layers(6, chain_of(6), 0.3, 2), 3),
    "two layers": (layers(6, chain_of(6), 1.0, 2), 3),
    "ring of 6": (layers(6, [*chain_of(6), (5, 0)], 0.7), 3),
    "ring of 8": (layers(8, [*chain_of(8), (7, 0)], np.pi / 2), 4),
    "star": (layers(7, [(0, qubit) for qubit in range(1, 7)], np.pi / 2), 4),
    "tree": (layers(7, TREE, np.pi / 2), 3),
    "ladder": (layers(8, [(0, 1), (2, 3), (4, 5), (6, 7), (1, 3), (3, 5), (5, 7)], 0.8), 4),
    "GHZ of 6": (ghz(6), 2),
    "GHZ of 12": (ghz(12), 5),
    "amplitudes of 4": (bound(real_amplitudes(4, "linear", reps=2)), 2),
    "amplitudes of 6": (bound(real_amplitudes(6, "linear", reps=1)), 3),
    "amplitudes of 8": (bound(real_amplitudes(8, "linear", reps=1)), 4),
    "amplitudes of 12": (bound(real_amplitudes(12, "linear", reps=1)), 4),
    "two layers of 8": (bound(real_amplitudes(8, "linear", reps=2)), 5),
    "all to all": (bound(real_amplitudes(5, "full", reps=1)), 3),
    "SU2 of 6": (bound(efficient_su2(6, entanglement="linear", reps=1)), 3),
    "SU2 in a ring": (bound(efficient_su2(6, entanglement="circular", reps=1)), 3),
}


@pytest.mark.soak
@pytest.mark.parametrize("name", PRICED)
def test_prices_are_what_runs_spend_on_many_circuits(name):
    """Within 30 % of the mean of six runs, each of which differs by about a fifth."""
    circuit, width = PRICED[name]
    pub, cuts = (circuit, "Z" * circuit.num_qubits), AutoCut(width)
    price = DistributedEstimator(cuts).price([pub], precision=0.02)
    spent = []
    for seed in range(6):
        with DistributedEstimator(cuts, options=EstimatorOptions(seed=seed)) as chosen:
            result = chosen.run([pub], precision=0.02).result()[0]
        spent.append(result.metadata["shots_total"])
    assert price.circuits >= result.metadata["num_circuits"]
    assert price.optimal == pytest.approx(np.mean(spent), rel=0.3)


# --- pilots of earlier runs


def test_earlier_runs_take_the_place_of_pilots():
    """Of 40 runs at points that move slowly; see above for the bound."""
    with estimator(reuse_pilots=True) as reusing:
        z = []
        for step in range(40):
            point = POINT + 0.01 * step
            result = reusing.run([(CIRCUIT, "ZZZZ", point)], precision=0.05).result()[0]
            assert (result.record.design.pilot_shots > 0) == (step == 0)
            z.append((result.data.evs - exact(point)) / result.data.stds)
        assert abs(np.mean(z)) < 5 / np.sqrt(40)
        far = reusing.run([(CIRCUIT, "ZZZZ", POINT + 2)], precision=0.05).result()[0]
        assert far.record.design.pilot_shots > 0
        other = reusing.run([(CIRCUIT, "XXXX", POINT)], precision=0.05).result()[0]
        assert other.record.design.pilot_shots > 0
        assert (
            reusing.run([(CIRCUIT, "ZZZZ", np.zeros((0, len(POINT))))]).result()[0].data.evs.size
            == 0
        )


# --- odd places


def test_a_derivative_that_nothing_depends_on_is_zero():
    angle, circuit = Parameter("t"), QuantumCircuit(2)
    circuit.ry(angle, 0)
    circuit.ry(0.2, 1)
    gradient = FragmentGradient(estimator("AB"), precision=0.02)
    result = gradient.run([circuit], ["ZI"], [[0.3]]).result()
    assert result.gradients[0].tolist() == [0.0]
    assert result.metadata[0]["stderrs"].tolist() == [0.0]


def test_further_pilots_go_with_any_order_of_tasks():
    policy = Policy(order=LargestInfluenceFirst())
    result = estimator("ABCD", policy=policy).run([(CIRCUIT, "ZZZZ", POINT)], precision=0.05)
    assert result.result()[0].data.stds <= 0.05


@pytest.mark.filterwarnings("ignore::distributed_estimator.errors.PrecisionWarning")
@pytest.mark.parametrize(
    "options", [{"shots_total": 20_000}, {"max_shots": 20_000, "default_precision": 0.002}, {}]
)
def test_a_journal_gives_what_was_paid_for(options, tmp_path):
    found = []
    for _ in range(2):
        with estimator(journal=tmp_path / "journal", **options) as chosen:
            found.append(chosen.run([(CIRCUIT, "ZZZZ", POINT)]).result()[0])
    assert found[0].data.evs == found[1].data.evs
    assert found[1].metadata["shots_total"] == 0 < found[0].metadata["shots_total"]


@pytest.mark.parametrize("allocation", ["optimal", "neyman", "uniform"])
@pytest.mark.parametrize("precision", [0.1, 1.0])
def test_long_chains_take_coarse_precisions(allocation, precision):
    circuit = QuantumCircuit(40)
    circuit.ry(0.3, range(40))
    for qubit in range(39):
        circuit.cx(qubit, qubit + 1)
    labels = "".join(chr(65 + n) * 2 for n in range(20))
    chosen = estimator(labels, allocation=allocation)
    result = chosen.run([(circuit, "Z" * 40)], precision=precision).result()[0]
    assert 0 < result.data.stds <= precision
    assert result.metadata["shots_total"] < 10**6


class Sparing(BaseSamplerV2):
    """Takes 20 shots of a circuit, whatever it is asked for."""

    def __init__(self):
        self.sampler = StatevectorSampler(seed=np.random.default_rng(3))

    def run(self, pubs, *, shots=None):
        return self.sampler.run([pub[:2] for pub in pubs], shots=20)


def test_a_sampler_that_takes_few_shots_is_not_asked_until_errors_seem_small():
    chosen = estimator(backend=SamplerBackend(Sparing(), defer_measurements=True))
    with pytest.warns(PrecisionWarning, match=r"precision 0\.01 takes more than the \d+ shots"):
        result = chosen.run([(CIRCUIT, "ZZZZ", POINT)], precision=0.01).result()[0]
    metadata = result.metadata
    assert metadata["num_subexperiments"] <= 2 * metadata["num_circuits"]
