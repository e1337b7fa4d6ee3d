"""Errors of readout are taken out without a bias, and error bars have what calibrations leave open.

The bits of `Misread` are flipped with known probabilities, on physical qubits that change with the
setting and are shared by all fragments.
"""

from __future__ import annotations

import numpy as np
import pytest
from helpers import Misread, entangled, run
from qiskit import QuantumCircuit
from qiskit.quantum_info import SparsePauliOp
from qiskit_addon_cutting.instructions import CutWire
from test_statistics import assert_calibrated, chain, observables

from distributed_estimator import (
    DistributedEstimator,
    EstimatorOptions,
    FragmentGradient,
    Mitigation,
    Zne,
)
from distributed_estimator.errors import BackendError, InputError, PrecisionWarning
from distributed_estimator.subexperiments import shots

FLIPS = (0.06, 0.02, 0.09, 0.04, 0.11)
READOUT = Mitigation(readout=True)
MOST = 10**12
TERMS = {
    # On the first fragment of "AAABBB" the generators of ZZI, IZZ and ZIZ overlap: the support of a
    # Pauli is what counts, not those of the generators that it is made of.
    "overlapping": SparsePauliOp(["IIZIZZ", "IIIZZI", "ZZIZIZ", "ZIZIII"], [1, -0.5, 0.7, 0.4]),
    "bases": SparsePauliOp(["XXIIYY", "ZZZZZZ", "IYIIXI", "IIIIII"], [1, 0.5, -1, 2]),
}


def estimator(labels, *, mitigation=READOUT, noise=None, **options):
    backend = noise or Misread(flips=FLIPS)
    own = EstimatorOptions(**{"seed": 1, "mitigation": mitigation, **options})
    return DistributedEstimator(labels, backend, workers=2, options=own)


def expected(**noise):
    """Counts as they are to be expected, so that nothing but their rounding is left."""
    return Misread(**{"flips": FLIPS, "drawn": False, **noise})


def wires():
    circuit = entangled(3, 5, layers=1)
    circuit.append(CutWire(), [1])
    circuit.cx(1, 2)
    circuit.ry(0.3, [1, 2])
    circuit.append(CutWire(), [2])
    circuit.ry(0.4, 2)
    return circuit


@pytest.mark.parametrize("basis", ["full", "minimal"])
@pytest.mark.parametrize("labels", ["AAAAAA", "AAABBB", "AABBCC", "ABBBBA"])
def test_errors_of_readout_are_taken_out_of_cut_gates(labels, basis):
    circuit, terms = entangled(6, 1), list(TERMS.values())
    exact = run(circuit, terms, labels).data.evs
    for mitigation, near in ((READOUT, True), (None, False)):
        own = estimator(
            labels, mitigation=mitigation, noise=expected(), shots=MOST, setting_basis=basis
        )
        found = run(circuit, terms, estimator=own, precision=None).data.evs
        assert np.allclose(found, exact, rtol=0, atol=1e-9 if near else 1e-3) is near


def test_fragments_that_are_alike_may_be_on_different_qubits():
    circuit = QuantumCircuit(3)
    circuit.ry(0.4, [0, 1, 2])
    own = estimator(None, noise=expected(), shots=MOST)
    found = run(circuit, "ZZZ", estimator=own, precision=None).data.evs
    assert found == pytest.approx(np.cos(0.4) ** 3, abs=1e-9)


def test_errors_of_readout_are_taken_out_of_cut_wires():
    circuit, terms = wires(), ["ZZZ", SparsePauliOp(["XIZ", "IZY"], [1, -1])]
    exact = run(circuit, terms).data.evs
    for mitigation, near in ((READOUT, True), (None, False)):
        own = estimator(None, mitigation=mitigation, noise=expected(), shots=MOST)
        found = run(circuit, terms, estimator=own, precision=None).data.evs
        assert np.allclose(found, exact, rtol=0, atol=1e-9 if near else 1e-3) is near


@pytest.mark.parametrize("allocation", ["optimal", "neyman", "uniform"])
def test_designs_take_errors_of_readout_out(allocation):
    """A count is rounded by half of one, and scatters by its root, here more than a thousand."""
    circuit, terms = entangled(6, 1), list(TERMS.values())
    exact = run(circuit, terms, "AAABBB").data.evs
    for mitigation, near in ((READOUT, True), (None, False)):
        own = estimator(
            "AAABBB",
            mitigation=mitigation,
            noise=expected(),
            shots_total=MOST,
            allocation=allocation,
        )
        data = run(circuit, terms, estimator=own, precision=None).data
        assert (np.abs(data.evs - exact) < 0.01 * data.stds).all() == near


def test_settings_that_are_drawn_have_errors_of_readout_taken_out(monkeypatch):
    monkeypatch.setattr(shots, "LARGEST_DENSE", 0)
    circuit, labels = chain("cx", 2)
    points = np.random.default_rng(9).uniform(-0.4, 0.4, (12, circuit.num_parameters))
    pub = circuit, observables(3), points[:, None]
    exact = DistributedEstimator(labels).run([pub], precision=0).result()[0].data.evs
    result = estimator(labels).run([pub], precision=0.05).result()[0]
    assert result.record.design.drawn
    z = (result.data.evs - exact) / result.data.stds
    assert np.abs(z.mean(axis=0)).max() < 5 / np.sqrt(12)
    assert (z**2).mean(axis=0).max() < 1 + 5 * np.sqrt(2 / 12)


def test_what_calibrations_add_is_the_same_where_settings_are_drawn(monkeypatch):
    """To the noise of shots: the values it is in proportion to are known to 0.02 of about 0.5."""
    circuit, labels = chain("cx", 1)
    pub = circuit, "IZ", np.full(circuit.num_parameters, 0.3)
    added = []
    for most in (shots.LARGEST_DENSE, 0):
        monkeypatch.setattr(shots, "LARGEST_DENSE", most)
        own = estimator(labels, noise=Misread(flips=FLIPS, calibration=40_000))
        result = own.run([pub], precision=0.02).result()[0]
        assert bool(result.record.design.drawn) == (not most)
        added.append(result.metadata["mitigation"]["readout_stderr"])
    assert added[0] == pytest.approx(added[1], rel=0.2)


@pytest.mark.parametrize("kind", ["cx", "CutWire"])
@pytest.mark.parametrize(
    "options",
    [{"shots": 300}, {"default_precision": 0.05}, {"shots_total": 40_000, "allocation": "neyman"}],
)
def test_values_scatter_as_standard_errors_say_where_readout_is_known(kind, options):
    """Of n bindings the mean of z² has a standard deviation of √(2/n)."""
    circuit, labels = chain(kind, 1)
    points = np.random.default_rng(9).uniform(-0.4, 0.4, (300, circuit.num_parameters))
    if "shots_total" in options:
        options = {**options, "shots_total": 300 * 10_000}
    pub = circuit, observables(2), points[:, None]
    exact = DistributedEstimator(labels).run([pub], precision=0).result()[0].data.evs
    data = estimator(labels, **options).run([pub]).result()[0].data
    assert_calibrated(data.evs - exact, data.stds, 5 * np.sqrt(2 / 300))


def repeated(own, seeds, pub, **kinds):
    """Results of as many runs, each with a calibration of its own."""
    found = []
    for seed in seeds:
        own.backend.seeds[0] = seed
        found.append(own.run([pub], **kinds).result())
    return found


def test_the_calibrations_part_of_standard_errors_is_its_spread():
    """At infinite shots; of 300 calibrations, with five standard deviations of a spread's estimate.

    Each physical qubit is measured in all fragments: errors that were squared before they are
    added up would be too small here by far.
    """
    circuit, labels = chain("cx", 1)
    point = np.random.default_rng(9).uniform(-0.4, 0.4, circuit.num_parameters)
    own = estimator(labels, noise=expected(calibration=4096), shots=MOST)
    found = repeated(own, range(300), (circuit, observables(2), point), covariance=True)
    exact = run(circuit, observables(2), labels, point).data.evs
    errors = np.array([each[0].data.evs for each in found]) - exact
    claimed = np.mean([each[0].data.stds ** 2 for each in found], axis=0)
    ratio = np.sqrt((errors**2).mean(axis=0) / claimed)
    assert np.abs(ratio - 1).max() < 5 / np.sqrt(600), ratio
    covariance = np.mean([each.metadata["covariance"] for each in found], axis=0)
    seen = errors.T @ errors / len(errors)
    scale = np.sqrt(np.outer(claimed, claimed))
    assert np.abs(covariance - seen).max() < (5 * np.sqrt(2 / 300) * scale).max()
    info = found[0][0].metadata["mitigation"]
    assert info["readout_stderr"] == pytest.approx(found[0][0].data.stds.max(), rel=1e-3)


def test_fragments_that_share_a_qubit_add_up_before_they_are_squared():
    """Two qubits without a gate between them: y = y₁y₂, each off by 2δ/(1 - 2e) of itself."""
    circuit = QuantumCircuit(2)
    circuit.ry(0.4, [0, 1])
    own = estimator(None, noise=expected(flips=(0.05,), calibration=10_000), shots=MOST)
    (result,) = own.run([(circuit, ["ZZ", "IZ"])]).result()
    both, one = result.data.stds
    assert both / one == pytest.approx(2 * result.data.evs[1], rel=1e-4)
    # The calibration's own estimate of e = 0.05 scatters by 0.0022.
    assert one == pytest.approx(2 * np.sqrt(0.05 * 0.95 / 10_000) / 0.9 * np.cos(0.4), rel=0.2)


@pytest.mark.soak
def test_error_bars_cover_as_often_as_they_say():
    """Of n = 1500 runs the share within one standard error has a standard deviation of 1.2 points.

    Calibrations and shots are drawn again for each; four points are the bar.
    """
    circuit, labels = chain("cx", 1)
    point = np.random.default_rng(9).uniform(-0.4, 0.4, circuit.num_parameters)
    exact = run(circuit, observables(2), labels, point).data.evs
    own = estimator(labels, noise=Misread(flips=FLIPS, calibration=4000), shots=500)
    found = repeated(own, range(1500), (circuit, observables(2), point))
    z = np.array([(each[0].data.evs - exact) / each[0].data.stds for each in found])
    for limit, share in ((1.0, 0.683), (1.96, 0.95)):
        assert np.abs((np.abs(z) < limit).mean(axis=0) - share).max() < 0.04


def test_standard_errors_of_gradients_have_the_calibrations_part():
    circuit, labels = chain("cx", 1)
    point = np.random.default_rng(9).uniform(-0.4, 0.4, circuit.num_parameters)
    exact = FragmentGradient(DistributedEstimator(labels), precision=0)
    wanted = exact.run([circuit], ["ZZ"], [point]).result().gradients[0]
    own = estimator(labels, noise=expected(calibration=4096), shots=MOST)
    gradient = FragmentGradient(own)
    errors, stderrs = [], []
    for seed in range(300):
        own.backend.seeds[0] = seed
        found = gradient.run([circuit], ["ZZ"], [point]).result()
        errors.append(found.gradients[0] - wanted)
        stderrs.append(found.metadata[0]["stderrs"])
    ratio = np.sqrt(np.mean(np.square(errors), axis=0) / np.mean(np.square(stderrs), axis=0))
    assert np.abs(ratio - 1).max() < 5 / np.sqrt(600), ratio


@pytest.mark.parametrize("norm", ["max", "rms"])
def test_a_precision_holds_with_the_calibrations_part(norm):
    circuit, labels = chain("cx", 1)
    point = np.full(circuit.num_parameters, 0.2)
    noise = Misread(flips=FLIPS, calibration=20_000)
    own = estimator(labels, noise=noise, error_norm=norm)
    result = own.run([(circuit, [*observables(2)], point)], precision=0.02).result()[0]
    assert result.metadata["reached_precision"] <= 0.02
    assert result.metadata["mitigation"]["readout_stderr"] > 0.002


def test_what_no_shots_can_mend_is_said():
    circuit, labels = chain("cx", 1)
    point = np.full(circuit.num_parameters, 0.2)
    own = estimator(labels, noise=Misread(flips=FLIPS, calibration=500))
    with pytest.warns(PrecisionWarning, match=r"better calibration.*`calibration_shots` to \d+"):
        own.run([(circuit, "ZZ", point)], precision=0.01).result()


def test_pilots_are_used_again_where_readout_is_mitigated():
    circuit, labels = chain("cx", 1)
    points = np.full(circuit.num_parameters, 0.2) + np.linspace(0, 0.05, 100)[:, None]
    pub = circuit, observables(2), points[:, None]
    exact = DistributedEstimator(labels).run([pub], precision=0).result()[0].data.evs
    own = estimator(labels, reuse_pilots=True)
    first, second = (own.run([pub], precision=0.05).result()[0] for _ in range(2))
    assert first.record.design.pilot_shots > second.record.design.pilot_shots == 0
    z = (second.data.evs - exact) / second.data.stds
    assert np.abs(z.mean(axis=0)).max() < 5 / np.sqrt(100)


def test_what_has_no_noise_is_refused():
    with pytest.raises(InputError, match=r"statevector has no noise.*leave `mitigation` out"):
        DistributedEstimator("AB", options=EstimatorOptions(mitigation=READOUT))
    circuit = QuantumCircuit(2)
    circuit.h([0, 1])
    with pytest.raises(BackendError, match="the backend misread samples"):
        estimator("AB").run([(circuit, "ZZ")], precision=0).result()
    with pytest.raises(InputError, match=r"not of probabilities.*without `readout`"):
        estimator("AB").probabilities(circuit, [0, 1], precision=0.1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mitigation(calibration_shots=10**18), r"shots` is 1\d+: .* at most 1000000000$"),
        (lambda: Mitigation(twirling=10**6), "`twirling` is 1000000: .* at most 1024, or None"),
        (lambda: Zne((1, 10**9 + 1)), "`factors` is 1000000001: .* at most 99"),
    ],
)
def test_numbers_without_end_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_copies_are_a_power_of_two():
    found = [Mitigation(twirling=copies).copies for copies in (0, 2, 3, 10, 16, 31, 1024)]
    assert found == [0, 2, 2, 8, 16, 16, 1024]


def test_a_single_copy_of_a_circuit_is_refused():
    """Its bits are flipped or not for all shots: errors unlike for 0 and 1 would shift its mean."""
    with pytest.raises(InputError, match=r"`twirling` is 1, and bits.*give 2 or more, such as 16"):
        Mitigation(readout=True, twirling=1)
