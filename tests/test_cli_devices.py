"""Devices by name in `dest plan` and `dest estimate`: noise, and accounts that stay secret."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import Done, refused
from qiskit import QuantumCircuit, qasm2

from distributed_estimator import Mitigation, Zne
from distributed_estimator.backends.named import find_device
from distributed_estimator.cli._devices import NoiseSettings
from distributed_estimator.errors import InputError

TOKEN = "0123456789abcdef-token"
PLACE = "https://example.invalid/crn:v1:secret"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    circuit = QuantumCircuit(4)
    for qubit in range(4):
        circuit.ry(0.3 + qubit, qubit)
    for qubit in range(3):
        circuit.cx(qubit, qubit + 1)
    path = tmp_path / "chain.qasm"
    path.write_text(qasm2.dumps(circuit), "utf-8")
    return path


@pytest.mark.parametrize("verb", ["estimate", "plan"])
def test_a_circuit_wider_than_the_device_is_refused_with_the_option_to_give(
    dest: Callable[..., Done], tmp_path: Path, verb: str
) -> None:
    path = tmp_path / "wide.qasm"
    circuit = QuantumCircuit(6)
    circuit.cx(range(5), range(1, 6))
    path.write_text(qasm2.dumps(circuit), "utf-8")
    message = refused(dest(verb, path, "--backend", "fake_manila"))
    assert "cut more, for instance with `--max-qubits 5`, or take a larger device" in message


@pytest.mark.parametrize("name", ["fake_manila", "FakeManilaV2", "FakeManila", "FAKE_MANILA"])
def test_simulated_devices_have_many_names(name: str) -> None:
    device = find_device(name)
    assert (device.name, device.num_qubits) == ("fake_manila", 5)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("fake_manilla", "did you mean `fake_manila`?"),
        ("FakeSherbroke", "did you mean `fake_sherbrooke`?"),
        ("fake_wwwwwwwwwww", "use some of fake_aachen, "),
    ],
)
@pytest.mark.parametrize("verb", ["plan", "estimate"])
def test_unknown_devices_end_with_what_may_have_been_meant(
    dest: Callable[..., Done], file: Path, verb: str, name: str, hint: str
) -> None:
    message = refused(dest(verb, file, "--label", "AABB", "--backend", name))
    assert "there is no simulated device of the name" in message
    assert hint in message


def test_plan_compares_whole_and_cut(dest: Callable[..., Done], file: Path) -> None:
    query = ("plan", file, "--label", "AABB", "--shots", 1000)
    devices = ("--backend", "fake_manila", "--backend", "fake_jakarta")
    document = dest(*query, *devices, "--json").document
    assert [each["device"] for each in document["noise"]] == ["fake_manila", "fake_jakarta"]
    for each in document["noise"]:
        assert each["shots"] == document["shots_total"] == 10_000
        assert (each["whole"]["qubits"], each["cut"]["qubits"]) == (4, 2)
        assert each["whole"]["gates"] > each["cut"]["gates"] == 2
        assert each["whole"]["depth"] > each["cut"]["depth"]
        assert len(each["fragments"]) == 2
        found = {(own["way"], *own["mitigated"]): own for own in each["outlooks"]}
        assert len(found) == 6
        assert found["cut", "readout"]["bias"] < found["cut",]["bias"]
        best = min(each["outlooks"], key=lambda own: own["error"])
        assert each["recommended"] == {name: best[name] for name in ("way", "mitigated", "error")}
    one = min(document["noise"], key=lambda own: own["recommended"]["error"])
    assert document["recommended"] == {"device": one["device"], **one["recommended"]}
    assert "noise" not in dest(*query, "--json").document
    out = " ".join(dest(*query, *devices).out.split())
    best = document["recommended"]
    mitigated = ", ".join(best["mitigated"]) or "nothing"
    text = f"{best['device']}, {best['way']}; mitigate {mitigated}; error about"
    assert f"Run on {text}" in out
    assert out.count("Recommended: ") == out.count(f"Recommended: {text}") == 1
    for name in ("fake_manila", "fake_jakarta"):
        assert f"Transpiled to {name}" in out


def test_plan_of_a_circuit_that_the_device_cannot_hold(
    dest: Callable[..., Done], tmp_path: Path
) -> None:
    circuit = QuantumCircuit(6)
    circuit.ry(0.3, range(6))
    for qubit in range(5):
        circuit.cx(qubit, qubit + 1)
    path = tmp_path / "six.qasm"
    path.write_text(qasm2.dumps(circuit), "utf-8")
    query = ("plan", path, "--backend", "fake_manila")
    noise = dest(*query, "--max-qubits", 3, "--json").document["noise"][0]
    assert noise["whole"] is None
    assert {own["way"] for own in noise["outlooks"]} == {"cut"}
    assert "fragment has 6 qubits, and the device 5" in refused(dest(*query))


def test_estimate_runs_with_the_noise_of_a_device(dest: Callable[..., Done], file: Path) -> None:
    query = ("estimate", file, "--label", "AABB", "--shots", 200, "--backend", "FakeManilaV2")
    document = dest(*query, "--json").document
    assert document["backends"] == ["FakeManilaV2"]
    assert document["mitigation"] is None
    assert document["record"]["backend"] == "qiskit_aer.SamplerV2(aer_simulator_from(fake_manila))"
    assert "\non FakeManilaV2\n" in dest(*query).out


def test_estimate_says_what_was_done_about_noise(dest: Callable[..., Done], file: Path) -> None:
    query = ("estimate", file, "--label", "AABB", "--shots", 50, "--backend", "fake_manila")
    found = dest(*query, "--mitigate", "readout", "--json").document["mitigation"]
    assert (found["readout"], found["twirling"], found["factors"]) == (True, 16, [1])
    assert 0 < found["readout_stderr"] < 0.1
    done = dest(*query, "--mitigate", "zne", "--noise-factors", "1,3")
    assert "extrapolated from noise factors 1, 3 (linear)" in done.out
    assert "readout errors taken out" not in done.out


def test_fragments_are_shared_by_several_devices(dest: Callable[..., Done], file: Path) -> None:
    query = ("estimate", file, "--label", "AABB", "--shots", 100)
    devices = ("--backend", "fake_manila", "--backend", "fake_lima")
    document = dest(*query, *devices, "--json").document
    assert document["backends"] == ["fake_manila", "fake_lima"]
    for name in document["backends"]:
        assert name in document["record"]["backend"]
    devices_used = document["devices"]
    assert sorted(fragment for own in devices_used for fragment in own["fragments"]) == [0, 1]
    assert sum(own["shots"] for own in devices_used) == document["record"]["shots_total"]
    assert [own["jobs"] for own in devices_used] == [1, 1]
    assert "\non fake_manila, fake_lima\n" in dest(*query, *devices).out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--exact",),
            "`--exact` takes no shots, and fake_manila gives nothing else: leave it out",
        ),
        (("--noise-factors", "1,3"), "`--noise-factors` belongs to zne"),
        (("--extrapolator", "linear"), "`--extrapolator` belongs to zne"),
        (("--mitigate", "readout,foo"), "each one of readout, zne, twirling"),
        (("--mitigate", "zne", "--noise-factors", "1,2"), "`--noise-factors` is (1, 2): give at"),
    ],
)
def test_options_of_noise_that_mean_nothing(
    dest: Callable[..., Done], file: Path, options: tuple[str, ...], message: str
) -> None:
    query = ("estimate", file, "--backend", "fake_manila")
    assert message in refused(dest(*query, *options))


def test_a_plan_of_exact_values_has_no_errors_on_devices(
    dest: Callable[..., Done], file: Path
) -> None:
    message = refused(dest("plan", file, "--exact", "--backend", "fake_manila"))
    assert "`--exact` takes no shots, and fake_manila gives nothing else: leave it out" in message


def test_mitigation_without_a_device_is_refused(dest: Callable[..., Done], file: Path) -> None:
    message = refused(dest("estimate", file, "--mitigate", "readout"))
    assert "`--mitigate` is about noise, and statevector has none: give a `--backend`" in message


def test_mitigation_as_the_command_line_writes_it() -> None:
    assert NoiseSettings().mitigation is None
    assert NoiseSettings(mitigate=("readout",)).mitigation == Mitigation(readout=True)
    both = NoiseSettings(
        mitigate=("zne", "twirling"), noise_factors=(1, 5), extrapolator="exponential"
    )
    assert both.mitigation == Mitigation(zne=Zne((1, 5), "exponential"), twirling=16)
    with pytest.raises(InputError, match="`extrapolator` belongs to zne"):
        NoiseSettings(mitigate=("readout",), extrapolator="linear")


# --- accounts


class _Service:
    """An account's service, which tells more than it should."""

    def __init__(self, opens: bool) -> None:
        if not opens:
            raise ValueError(f"{TOKEN} is not valid at {PLACE}")

    def backend(self, name: str) -> object:
        raise RuntimeError(f"no {name} at {PLACE} for {TOKEN}")


@pytest.mark.parametrize("verb", ["plan", "estimate"])
@pytest.mark.parametrize(
    ("opens", "message"),
    [
        (False, "no account that works was found for ibm_torino (ValueError)"),
        (True, "the account's service gave no device ibm_torino (RuntimeError)"),
    ],
)
def test_what_an_account_says_is_not_repeated(
    dest: Callable[..., Done],
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    opens: bool,
    message: str,
) -> None:
    monkeypatch.setattr("qiskit_ibm_runtime.QiskitRuntimeService", lambda: _Service(opens))
    done = refused(dest(verb, file, "--label", "AABB", "--backend", "ibm_torino"))
    assert message in done
    assert "save_account" in done
    assert TOKEN not in done
    assert PLACE not in done


def test_only_names_of_an_account_ask_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Service:
        def backend(self, name: str) -> str:
            asked.append(name)
            return name

    monkeypatch.setattr("qiskit_ibm_runtime.QiskitRuntimeService", Service)
    find_device("fake_manila")
    with pytest.raises(InputError):
        find_device("torino")
    assert not asked
    assert find_device("ibm_torino") == "ibm_torino"
    assert asked == ["ibm_torino"]


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("qiskit_ibm_runtime", "qiskit-ibm-runtime", "runtime"),
        ("qiskit_aer.primitives", "qiskit-aer", "aer"),
    ],
)
def test_a_missing_package_ends_with_how_to_install_it(
    dest: Callable[..., Done],
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    package: str,
    extra: str,
) -> None:
    find_device("fake_manila")  # the runtime imports Aer with its first device
    monkeypatch.setitem(sys.modules, module, None)
    message = refused(dest("estimate", file, "--backend", "fake_manila"))
    install = f'run `pip install "distributed-estimator[{extra}]"`'
    assert f"`{package}`, which is not installed: {install}" in message
