"""`dest estimate` at many bindings, on any backend, from standard input; help and progress."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from helpers import Done, reference, refused
from qiskit import QuantumCircuit, qasm3, qpy
from qiskit.circuit import Parameter
from qiskit_aer.noise import (
    NoiseModel,
    ReadoutError,
    amplitude_damping_error,
    coherent_unitary_error,
    depolarizing_error,
    reset_error,
)
from qiskit_ibm_runtime.fake_provider import FakeManilaV2

from distributed_estimator.cli._bindings import number
from distributed_estimator.cli._noise_models import read_noise_model, simulator_from
from distributed_estimator.cli.main import dest as command
from distributed_estimator.errors import InputError

A, B = Parameter("a"), Parameter("b")
CIRCUIT = QuantumCircuit(4)
CIRCUIT.ry(A, 0)
for _qubit in range(3):
    CIRCUIT.cx(_qubit, _qubit + 1)
CIRCUIT.rx(B, 2)
ROWS = [[0.1, math.pi / 2], [-3 * math.pi / 4, 0.25]]


def value(row: list[float], observable: str) -> float:
    return reference(CIRCUIT, observable, row)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "two.qasm"
    path.write_text(qasm3.dumps(CIRCUIT), "utf-8")
    return path


@pytest.fixture
def send(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Sends bytes to standard input."""

    def send(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    return send


# --- formulas


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.5", 0.5),
        ("1e-3", 1e-3),
        (" pi/2 ", math.pi / 2),
        ("-3*pi/4", -3 * math.pi / 4),
        ("2*π", math.tau),
        ("(1 + 2)*tau", 3 * math.tau),
        ("e**-1", math.exp(-1)),
        ("-2**2", -4.0),
    ],
)
def test_values_are_numbers_or_formulas(text: str, expected: float) -> None:
    assert number(text) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "abc",
            "2pi",
            "pi pi",
            "1,2",
            "nan",
            "inf",
            "1e999",
            "1/0",
            "(-8)**0.5",
            "1j",
            "True",
        ),
        *("9**9**9**9", "__import__('os')", "pi.real", "e(1)", "()", "(" * 150, "-" * 199 + "1e"),
        *("[1]", "'1'", "1 if 1 else 2", "a", "\0", "0x10", "+" * 300 + "1"),
    ],
)
def test_anything_else_is_no_value(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        number(text)


# --- bindings

SAME = {
    "lists": ("--values", "0.1,pi/2", "--values", "-3*pi/4, 0.25"),
    "csv": "0.1,pi/2\n\n-3*pi/4,0.25\n",
    "csv with names": "b,a\npi/2,0.1\n0.25,-3*pi/4\n",
    "json lists": '[[0.1, "pi/2"], ["-3*pi/4", 0.25]]',
    "json objects": '[{"a": 0.1, "b": "pi/2"}, {"b": 0.25, "a": "-3*pi/4"}]',
}


@pytest.mark.parametrize("form", SAME)
def test_several_bindings_give_several_values(
    dest: Callable[..., Done], file: Path, tmp_path: Path, form: str
) -> None:
    options = SAME[form]
    if isinstance(options, str):
        (tmp_path / "rows").write_text(options, "utf-8")
        options = ("--values", f"@{tmp_path / 'rows'}")
    query = ("estimate", file, "--label", "AABB", "--exact", *options)
    observables = ("--observable", "ZZZZ", "--observable", "0.5*ZIII - IIIZ")
    document = dest(*query, *observables, "--json").document
    assert [each["name"] for each in document["observables"]] == ["ZZZZ", "0.5*ZIII - IIIZ"]
    assert "value" not in document
    expected = [
        (number, name, {"a": row[0], "b": row[1]})
        for number, row in enumerate(ROWS, 1)
        for name in ("ZZZZ", "0.5*ZIII - IIIZ")
    ]
    for own, (place, name, parameters) in zip(document["values"], expected, strict=True):
        assert (own["row"], own["observable"], own["stderr"]) == (place, name, 0.0)
        assert own["parameters"] == pytest.approx(parameters, rel=1e-15)
        row = [parameters["a"], parameters["b"]]
        wanted = value(row, "ZZZZ")
        if name != "ZZZZ":
            wanted = 0.5 * value(row, "ZIII") - value(row, "IIIZ")
        assert own["value"] == pytest.approx(wanted, abs=1e-10)
    assert document["record"]["num_queries"] == 4


def test_observables_with_commas_have_names_of_their_own(
    dest: Callable[..., Done], file: Path
) -> None:
    query = ("estimate", file, "--label", "AABB", "--exact", "--values", "0.1,pi/2")
    document = dest(*query, "--observable", "ZZII, z_each,XXII", "--json").document
    names = {"ZZII": "ZZII", "z_0": "IIIZ", "z_1": "IIZI", "z_2": "IZII", "z_3": "ZIII"}
    names |= {"XXII": "XXII"}
    assert [each["observable"] for each in document["values"]] == list(names)
    for own, paulis in zip(document["values"], names.values(), strict=True):
        assert own["value"] == pytest.approx(value([0.1, math.pi / 2], paulis), abs=1e-10)


@pytest.mark.parametrize("accuracy", [("--shots", 100), ("--precision", 0.1), ("--exact",)])
def test_a_plan_counts_circuits_of_all_bindings_and_shared_ones_once(
    dest: Callable[..., Done], file: Path, accuracy: tuple[Any, ...]
) -> None:
    # The last two differ on one fragment alone.
    rows = [arg for row in ("0.1,0.2", "0.3,0.4", "0.3,0.5") for arg in ("--values", row)]
    query = (file, "--label", "AABB", *rows, *accuracy)
    verdict = dest("plan", *query, "--json").document["verdict"]
    record = dest("estimate", *query, "--json").document["record"]
    assert verdict["circuits"] == 25 < 3 * record["num_circuits"]
    assert "\nCircuits    25 in all, full basis" in dest("plan", *query).out
    if "--precision" not in accuracy:  # else pilots are counted as well
        assert verdict["circuits"] == record["num_subexperiments"]
        assert verdict["shots"] == record["shots_total"]


def test_values_as_csv_and_as_a_narrow_table(
    dest: Callable[..., Done], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    query = ("estimate", file, "--label", "AABB", "--shots", 200, *SAME["lists"])
    document = dest(*query, "--json").document
    rows = list(csv.DictReader(io.StringIO(dest(*query, "--csv").out)))
    assert [list(row) for row in rows] == [["row", "observable", "a", "b", "value", "stderr"]] * 2
    for row, own in zip(rows, document["values"], strict=True):
        assert [row["row"], row["observable"]] == [str(own["row"]), "z_all"]
        assert [float(row[name]) for name in ("a", "b")] == list(own["parameters"].values())
        assert (float(row["value"]), float(row["stderr"])) == (own["value"], own["stderr"])
    lines = dest(*query).out.splitlines()
    assert max(map(len, lines)) <= 60
    assert sum("±" in line for line in lines) == 2
    assert "on statevector" in lines
    assert "exclude one another: give one" in refused(dest(*query, "--json", "--csv"))


def test_long_tables_are_cut_off(dest: Callable[..., Done], file: Path, tmp_path: Path) -> None:
    (tmp_path / "rows").write_text("".join(f"{n},{n}/9\n" for n in range(50)), "utf-8")
    done = dest("estimate", file, "--exact", "--values", f"@{tmp_path / 'rows'}")
    assert sum(" z_all " in line for line in done.out.splitlines()) == 40
    assert "note: the first 40 of 50 values; --json and --csv have all" in done.err


def test_distributions_at_several_bindings(dest: Callable[..., Done], file: Path) -> None:
    query = ("estimate", file, "--exact", "--probabilities", "1,0", *SAME["lists"])
    found = dest(*query, "--json").document["distributions"]
    for own, row in zip(found, ROWS, strict=True):
        up = math.cos(row[0] / 2) ** 2
        assert own["probabilities"] == pytest.approx([up, 0, 0, 1 - up], abs=1e-10)
    lines = dest(*query, "--csv").out.splitlines()
    assert lines[0] == "row,outcome,a,b,probability,stderr,nearest"
    assert [line.split(",")[:2] for line in lines[1:]] == [
        [row, outcome] for row in "12" for outcome in ("00", "01", "10", "11")
    ]
    out = dest(*query).out
    assert "Outcomes of qubits 0, 1, row 2" in out


def test_a_parameter_may_be_the_same_in_all_bindings(dest: Callable[..., Done], file: Path) -> None:
    query = ("estimate", file, "--exact", "--json", "--parameter", "b=pi/2")
    for values in ("0.1", "0.2"):
        found = dest(*query, "--values", values).document
        assert found["value"] == pytest.approx(value([float(values), math.pi / 2], "ZZZZ"))


def test_plan_counts_the_shots_of_all_bindings(dest: Callable[..., Done], file: Path) -> None:
    query = (file, "--label", "AABB", "--shots", 100, *SAME["lists"], "--json")
    plan = dest("plan", *query).document
    assert plan["num_circuits"] == 10
    assert plan["shots_total"] == dest("estimate", *query).document["record"]["shots_total"] == 2000


BAD_ROWS = {
    "word": (
        "0.1,0.2\n0.3,abc\n",
        "row 2, b: 'abc' is no value; give a finite number or a formula",
    ),
    "first row": ("0.1,abc\n", "row 1, b: 'abc' is no value"),
    "short": (
        "0.1,0.2\n0.3\n",
        "row 2 has 1 value, and there are 2 parameters: give one for each",
    ),
    "order": ("0.1,0.2,0.3\n", "in this order: a, b"),
    "names": ("a,c\n1,2\n", "names c, the circuit's parameters are: a, b"),
    "names twice": ("a,a\n1,2\n", "names a more than once"),
    "short of names": ("a,b\n1\n", "row 1 has 1 value, and the first line names 2 columns"),
    "empty cell": ("a,b\n1,\n", "row 1, b: '' is no value"),
    "a row of empty cells": ("b,a\n0.1,0.2\n,\n0.3,0.4\n", "row 2, b: '' is no value"),
    "a missing column": ("a\n1\n", "no value for 1 of 2 parameters (b): give each with"),
    "empty": ("\n\n", "holds no values: give a row for each binding"),
    "header alone": ("a,b\n", "holds no values"),
    "binary": (b"\xff\xfe", "is no text"),
    "json": ("[[1, 2]", "begins as JSON does and is none"),
    "json, deep": ("[" * 100_000, "begins as JSON does and is none"),
    "json, null": ('[{"a": null, "b": 1}]', "row 1, a: None is no value"),
    "json, true": ("[[true, 1]]", "row 1, a: True is no value"),
    "json, name": ('[{"a": 1, "b": 1}, {"a": 1, "c": 2}]', "row 2 names c, the circuit's"),
    "json, missing": (
        '[{"a": 1, "b": 1}, {"a": 1}]',
        "no value in row 2 for 1 of 2 parameters (b)",
    ),
    "json, twice": ('[{"a": 1, "a": 2, "b": 1}]', "gives 'a' more than once in an object"),
    "json, nested": ("[[[1], 2]]", "row 1, a: [1] is no value"),
    "json, empty": ("[]", "holds no values"),
}


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_bad_files_of_values(
    dest: Callable[..., Done], file: Path, tmp_path: Path, kind: str
) -> None:
    content, message = BAD_ROWS[kind]
    path = tmp_path / "rows.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    said = refused(dest("estimate", file, "--values", f"@{path}"))
    assert message in said
    assert str(path) in said or "no value" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--values", "0.1"), "`--values 0.1` has 1 value, and there are 2 parameters"),
        (("--values", "0.1,x"), "`--values 0.1,x`, b: 'x' is no value"),
        (("--values", "0.1,"), "b: '' is no value"),
        (("--values", "1," * 200 + "1.e"), "has 201 values, and there are 2 parameters"),
        (("--values", "1,2", "--parameter", "a=1"), "has 2 values, and there are 1 parameter"),
        (("--parameter", "a=2pi"), "`--parameter a=2pi`, a: '2pi' is no value"),
        (("--values", "@none.csv"), "`none.csv` does not exist: name a CSV or JSON file"),
    ],
)
def test_bad_values(
    dest: Callable[..., Done], file: Path, options: tuple[str, ...], message: str
) -> None:
    for verb in ("estimate", "plan"):
        assert message in refused(dest(verb, file, *options))


@pytest.mark.parametrize("option", ["--values", "--observable"])
def test_a_file_without_its_at_sign_is_recognised(
    dest: Callable[..., Done], file: Path, tmp_path: Path, option: str
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2\n", "utf-8")
    message = refused(dest("estimate", file, option, path))
    assert f"`{path}` is a file: give `@{path}` to read what is in it" in message


def test_values_and_circuits_that_do_not_go_together(
    dest: Callable[..., Done], file: Path, tmp_path: Path
) -> None:
    (tmp_path / "rows").write_text("a,b\n1,2\n", "utf-8")
    options = ("--values", f"@{tmp_path / 'rows'}", "--parameter", "a=1")
    assert "gives a, and so does `--parameter`" in refused(dest("estimate", file, *options))
    (tmp_path / "plain.qasm").write_text("OPENQASM 3.0; qubit[2] q;", "utf-8")
    message = refused(dest("estimate", tmp_path / "plain.qasm", "--values", "1"))
    assert "the circuit has no parameters: leave it out" in message


# --- standard input


def test_each_of_three_files_may_come_from_standard_input(
    dest: Callable[..., Done], file: Path, tmp_path: Path, send: Callable[[bytes], None]
) -> None:
    options = ("--exact", "--json")
    expected = pytest.approx(value(ROWS[0], "ZZZZ"), abs=1e-10)
    for_qpy = io.BytesIO()
    qpy.dump(CIRCUIT, for_qpy)
    for content in (file.read_bytes(), for_qpy.getvalue()):
        send(content)
        assert dest("estimate", "-", *options, "--values", "0.1,pi/2").document["value"] == expected
    for name in ("-", "@-"):
        send(b"a,b\n0.1,pi/2\n")
        assert dest("estimate", file, *options, "--values", name).document["value"] == expected
        send(b"1 ZZZZ\n")
        query = ("estimate", file, *options, "--values", "0.1,pi/2", "--observable", name)
        assert dest(*query).document["value"] == expected


def test_standard_input_is_read_once(
    dest: Callable[..., Done], file: Path, send: Callable[[bytes], None]
) -> None:
    send(file.read_bytes())
    assert "is read once" in refused(dest("estimate", "-", "--values", "-"))
    send(b"")
    assert "`-` (standard input) has nothing: send an OpenQASM" in refused(dest("estimate", "-"))


# --- backends


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "manila",
            "`--backend` is 'manila': did you mean `fake_manila`? Or give statevector, aer,",
        ),
        ("statevektor", "did you mean `statevector`?"),
        ("", "`--backend` is '': give statevector, aer, aer:noise=FILE, fake_manila or fake:NAME"),
        ("a b:c", "`--backend` is 'a b:c': give statevector"),
        ("nothing_here:make", "there is no module nothing_here, neither installed nor in the curr"),
        ("math:nothing", "importing or calling it raised AttributeError"),
        ("math:pi", "importing or calling it raised TypeError"),
        ("os:getcwd", "`--backend os:getcwd` gives '"),
        ("aer:shots=3", "`--backend` is 'aer:shots=3': give aer, or aer:noise=FILE"),
        ("aer:noise=none.json", "`none.json` does not exist: name a JSON file of a noise model"),
        ("fake:nowhere_at_all", "there is no simulated device of the name 'fake_nowhere_at_all'"),
    ],
)
def test_backends_that_there_are_not(
    dest: Callable[..., Done], file: Path, spec: str, message: str
) -> None:
    query = ("estimate", file, "--values", "0.1,0.2", "--shots", 10, "--backend", spec)
    assert message in refused(dest(*query))


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("statevector", "statevector"),
        ("aer", "qiskit_aer.SamplerV2"),
        ("fake:FakeManilaV2", "qiskit_aer.SamplerV2(aer_simulator_from(fake_manila))"),
        ("fake:manila", "qiskit_aer.SamplerV2(aer_simulator_from(fake_manila))"),
    ],
)
def test_backends_by_name(dest: Callable[..., Done], file: Path, spec: str, name: str) -> None:
    query = ("estimate", file, "--label", "AABB", "--values", "0.1,0.2", "--shots", 50)
    document = dest(*query, "--backend", spec, "--json").document
    assert (document["backends"], document["record"]["backend"]) == ([spec], name)


@pytest.mark.parametrize("spec", ["ibm:torino", "ibm:ibm_torino", "ibm_torino"])
def test_devices_of_an_account_have_two_spellings(
    dest: Callable[..., Done], file: Path, monkeypatch: pytest.MonkeyPatch, spec: str
) -> None:
    asked: list[str] = []

    class Service:
        def backend(self, name: str) -> object:
            asked.append(name)
            raise ValueError

    monkeypatch.setattr("qiskit_ibm_runtime.QiskitRuntimeService", Service)
    message = refused(dest("estimate", file, "--values", "1,2", "--backend", spec))
    assert "the account's service gave no device ibm_torino" in message
    assert asked == ["ibm_torino"]


MODULE = """
from qiskit.primitives import StatevectorSampler
from qiskit_ibm_runtime.fake_provider import FakeManilaV2

def make():
    return StatevectorSampler(seed=3)

def device():
    return FakeManilaV2()

def broken():
    raise OSError("Bearer 0123456789abcdef was refused at https://there.example/crn")
"""


def test_a_function_of_the_users_gives_a_backend(
    dest: Callable[..., Done], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("own_devices.py").write_text(MODULE, "utf-8")
    query = ("estimate", file, "--label", "AABB", "--values", "0.1,0.2", "--shots", 50)
    document = dest(*query, "--backend", "own_devices:make", "--json").document
    assert document["record"]["backend"] == "qiskit.StatevectorSampler"
    plan = dest("plan", *query[1:], "--backend", "own_devices:device", "--json").document
    assert [each["device"] for each in plan["noise"]] == ["own_devices:device"]
    message = refused(dest(*query, "--backend", "own_devices:broken"))
    assert "importing or calling it raised OSError: " in message
    assert "0123456789" not in message
    assert "there.example" not in message
    assert "noise" not in dest("plan", *query[1:], "--backend", "aer", "--json").document


def noise_models() -> dict[str, NoiseModel]:
    everywhere = NoiseModel()
    everywhere.add_all_qubit_quantum_error(depolarizing_error(0.3, 2), ["cx"])
    everywhere.add_all_qubit_readout_error(ReadoutError([[0.9, 0.1], [0.2, 0.8]]))
    local = NoiseModel()
    local.add_quantum_error(amplitude_damping_error(0.1), ["sx"], [0])
    local.add_quantum_error(coherent_unitary_error([[1, 0], [0, 1j]]), ["x"], [1])
    local.add_quantum_error(reset_error(0.1, 0.2), ["sx"], [2])
    return {"everywhere": everywhere, "local": local, "cz": cz_only()}


def cz_only() -> NoiseModel:
    noise = NoiseModel(basis_gates=["cz", "rz", "sx", "x"])
    noise.add_quantum_error(depolarizing_error(0.5, 2), ["cz"], [0, 1])
    noise.add_quantum_error(depolarizing_error(0.5, 2), ["cz"], [1, 2])
    return noise


def as_json(noise: NoiseModel, path: Path) -> Path:
    path.write_text(json.dumps(noise.to_dict(serializable=True)), "utf-8")
    return path


@pytest.mark.parametrize("name", ["everywhere", "local", "cz"])
def test_noise_models_from_json_are_what_was_written(name: str, tmp_path: Path) -> None:
    noise = noise_models()[name]
    read = read_noise_model(as_json(noise, tmp_path / "noise.json"))
    read.add_basis_gates(noise.basis_gates)
    noise.add_basis_gates(read.basis_gates)
    assert read == noise


def test_errors_of_pairs_make_a_device_with_these_couplings(tmp_path: Path) -> None:
    backend = simulator_from(as_json(cz_only(), tmp_path / "line.json"))._backend
    assert (backend.name, backend.num_qubits) == ("aer_simulator_from(line)", 3)
    assert sorted(backend.coupling_map) == [(0, 1), (1, 2)]
    assert "cx" not in backend.target.operation_names  # a gate without noise would be taken


def test_estimates_have_the_noise_of_a_file(
    dest: Callable[..., Done], file: Path, tmp_path: Path
) -> None:
    """Three CX that keep 0.7 of a Pauli: 0.34 of the value; 10 σ of 0.016 are 0.16."""
    noise = NoiseModel()
    noise.add_all_qubit_quantum_error(depolarizing_error(0.3, 2), ["cx"])
    path = as_json(noise, tmp_path / "noise.json")
    query = ("estimate", file, "--shots", 4000, "--values", "0,0", "--json")
    document = dest(*query, "--backend", f"aer:noise={path}").document
    assert document["record"]["backend"] == "qiskit_aer.SamplerV2(noise model)"
    assert abs(document["value"] - 0.343) < 0.16
    assert dest(*query, "--backend", "aer").document["value"] == 1.0


def test_properties_of_a_device_are_a_noise_model(tmp_path: Path) -> None:
    path = tmp_path / "props.json"
    properties = FakeManilaV2().properties().to_dict()
    path.write_text(json.dumps(properties, default=str), "utf-8")
    read = read_noise_model(path)
    assert read.noise_qubits == [0, 1, 2, 3, 4]
    assert "cx" in read.noise_instructions


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no readable JSON"),
        ("[" * 100_000, "is no readable JSON"),
        ("[]", "is no noise model: give what `json.dumps(model.to_dict(serializable=True))`"),
        ('{"errors": 3}', "is no readable noise model: TypeError"),
        ('{"errors": [{"type": "qerror", "operations": ["cx"]}]}', "no readable noise model"),
        ('{"qubits": [], "gates": []}', "is no readable noise model"),
    ],
)
def test_files_that_hold_no_noise_model(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "noise.json").write_text(content, "utf-8")
    with pytest.raises(InputError, match=r"noise\.json") as caught:
        read_noise_model(tmp_path / "noise.json")
    assert message in str(caught.value)


def test_qubits_that_no_device_has_are_refused(tmp_path: Path) -> None:
    noise = NoiseModel()
    noise.add_quantum_error(depolarizing_error(0.5, 2), ["cx"], [0, 99_999_999])
    with pytest.raises(InputError, match="names qubits from 10000 on"):
        simulator_from(as_json(noise, tmp_path / "noise.json"))


# --- calibration, progress, help


def test_shots_of_calibrations_are_counted(dest: Callable[..., Done], file: Path) -> None:
    query = ("estimate", file, "--label", "AABB", "--values", "0,0", "--shots", 20)
    query = (*query, "--backend", "fake_manila", "--mitigate", "readout")
    document = dest(*query, "--json").document
    (device,) = document["devices"]
    assert device["calibration_shots"] == 2 * 2**14
    assert "\n32768 calibration shots\n" in dest(*query).out
    (none,) = dest(*query[:-2], "--json").document["devices"]
    assert none["calibration_shots"] == 0


def test_progress_is_reported_task_by_task(
    dest: Callable[..., Done], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every round begins with none of its tasks done and ends with all of them."""
    seen: list[tuple[str, int, int]] = []

    class Bar:
        def __enter__(self) -> Callable[..., None]:
            return lambda **own: seen.append(tuple(own.values())) if own else None

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr("distributed_estimator.cli.estimate.progress_bar", lambda *_, **__: Bar())
    query = ("estimate", file, "--label", "AABB", "--values", "0.1,0.2", "--precision", 0.1)
    assert dest(*query, "--subexperiments-per-task", 2).code == 0
    rounds = sorted({name for name, *_ in seen})
    assert rounds[:2] == ["round 1, tasks", "round 2, tasks"]
    for name in rounds:
        own = [(done, total) for round_, done, total in seen if round_ == name]
        total = own[0][1]
        assert total > 1
        assert own == [(done, total) for done in range(total + 1)]


def test_nothing_is_shown_meanwhile_where_there_is_no_terminal(
    dest: Callable[..., Done], file: Path
) -> None:
    assert dest("estimate", file, "--values", "0.1,0.2").err == ""


def verbs(group: click.Group, *path: str) -> list[tuple[str, ...]]:
    context, found = click.Context(group), []
    for name in group.list_commands(context):
        each = group.get_command(context, name)
        found += verbs(each, *path, name) if isinstance(each, click.Group) else [(*path, name)]
    return found


@pytest.mark.parametrize("verb", verbs(command), ids=" ".join)
def test_help_of_every_verb_has_groups_and_an_example(
    dest: Callable[..., Done], verb: tuple[str, ...]
) -> None:
    out = dest(*verb, "--help").out
    assert "\nOutput:\n" in out
    assert f"Examples:\n    dest {' '.join(verb)}" in out
    assert max(map(len, out.splitlines())) <= 80
    left = [
        line for line in out.split("\nOther:\n")[1].split("\n\n")[0].splitlines() if "-" in line
    ]
    # Click remembers the option's names from the first context, which other tests make without -h.
    assert [line.split("--help")[1] for line in left] == ["  Show this message and exit."]


def test_the_help_of_an_estimate_has_the_groups_in_order(dest: Callable[..., Done]) -> None:
    out = dest("estimate", "--help").out
    titles = [line[:-1] for line in out.splitlines() if line[:1].isalpha() and line[-1:] == ":"]
    assert titles == [
        *("Circuit", "Cuts", "Shots", "Where it runs", "Noise", "Tasks and faults"),
        *("Stragglers, for experiments", "Output", "Other"),
    ]


def test_completion_of_words_comes_with_click(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_DEST_COMPLETE", "zsh_complete")
    monkeypatch.setenv("COMP_WORDS", "dest estimate --back")
    monkeypatch.setenv("COMP_CWORD", "2")
    with pytest.raises(SystemExit):
        command.main([], prog_name="dest")
    assert "--backend" in capsys.readouterr().out
