"""The command `dest`: what it prints, and how it ends when the input is wrong."""

from __future__ import annotations

import importlib
import io
import json
import logging
import math
import re
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import click
import numpy as np
import pytest
from helpers import Done, refused, run_without
from hostile_study import training_run
from qiskit import QuantumCircuit, qasm2, qasm3, qpy
from qiskit.circuit import Parameter
from qiskit.circuit.library import PauliEvolutionGate, UnitaryGate
from qiskit.quantum_info import SparsePauliOp, Statevector
from qiskit_addon_cutting.instructions import CutWire
from study_folders import StudyFolder, trained

from distributed_estimator.cli import _files
from distributed_estimator.cli._options import FieldType
from distributed_estimator.cli.main import dest as command
from distributed_estimator.cli.main import main
from distributed_estimator.cli.plan import draw_cuts
from distributed_estimator.cutting import CutPlan
from distributed_estimator.errors import InputError
from distributed_estimator.training.config import Magnitudes, TrainingConfig
from distributed_estimator.training.models import ModelConfig
from distributed_estimator.training.runs import RunFolder
from distributed_estimator.training.workloads import WorkloadConfig

# The package's attribute `train` is the command; this is the module it is defined in.
train_command = importlib.import_module("distributed_estimator.cli.train")

PNG = b"\x89PNG\r\n\x1a\n"


def chain(theta: float | Parameter = 0.4) -> QuantumCircuit:
    circuit = QuantumCircuit(4)
    for qubit in range(4):
        circuit.ry(0.3 + qubit, qubit)
    for qubit in range(3):
        circuit.cx(qubit, qubit + 1)
    circuit.rx(theta, 2)
    return circuit


def exact(circuit: QuantumCircuit, observable: str) -> float:
    return float(np.real(Statevector(circuit).expectation_value(SparsePauliOp(observable))))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "chain.qasm"
    path.write_text(qasm2.dumps(chain()), "utf-8")
    return path


@pytest.fixture
def symbolic(tmp_path: Path) -> Path:
    path = tmp_path / "symbolic.qasm3"
    path.write_text(qasm3.dumps(chain(Parameter("theta"))), "utf-8")
    return path


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of a training and of a study."""
    folder = tmp_path_factory.mktemp("places")
    study = StudyFolder(folder / "study")
    for count in range(1, 10):
        study.add(
            "training", "train", trained(1.0), queries=[{"subexperiments": count}], seed=count
        )
    return {"run": training_run(folder / "run"), "study": study.path}


def assert_refused(done: Done, message: str, folder: Path | None = None) -> None:
    """It is refused for that reason, and nothing is written."""
    assert message in refused(done)
    assert not list((folder or Path()).iterdir())


@pytest.fixture(autouse=True)
def brief_searches(monkeypatch: pytest.MonkeyPatch):
    """Plans that are no result of a search are compared with those of short ones."""
    monkeypatch.setattr("distributed_estimator.cli._forecast._SECONDS", 0.2)


# --- dest


def test_help_and_version(dest: Callable[..., Done]):
    assert "estimate" in dest().out
    assert dest().out == dest("--help").out
    assert dest("--version").out.startswith("dest, version ")
    for verb in ("classify", "estimate", "plan", "robustness", "train"):
        assert dest(verb, "--help").code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mine"], "`mine` is no verb: use some of classify, costs, estimate"),
        (["estimat"], "`estimat` is no verb: did you mean `estimate`?"),
        (["--mine"], "No such option"),
        (["train", "cats"], "`cats` is no workload: give one of iris, mnist, breast_cancer"),
        (["train"], "Missing argument 'WORKLOAD'"),
        (["estimate"], "Missing argument 'FILE'"),
    ],
)
def test_a_command_line_that_means_nothing(
    dest: Callable[..., Done], arguments: list[str], message: str
):
    assert_refused(dest(*arguments), message)


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_a_defect_keeps_its_traceback_and_an_interrupt_has_none(
    dest: Callable[..., Done],
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
):
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr("distributed_estimator.cli.estimate.make_pool", broken)
    if error is ZeroDivisionError:
        with pytest.raises(ZeroDivisionError):
            dest("estimate", file)
    else:
        done = dest("estimate", file)
        assert (done.code, done.err.strip()) == (130, "dest: interrupted")


# --- dest estimate


@pytest.mark.parametrize("suffix", ["qasm", "qasm3", "qpy", "txt"])
@pytest.mark.parametrize("version", ["qasm2", "qasm3", "qpy"])
def test_formats_are_told_by_content_whatever_the_name(
    dest: Callable[..., Done], tmp_path: Path, version: str, suffix: str
):
    path = tmp_path / f"circuit.{suffix}"
    if version == "qpy":
        with path.open("wb") as stream:
            qpy.dump(chain(), stream)
    else:
        path.write_text({"qasm2": qasm2, "qasm3": qasm3}[version].dumps(chain()), "utf-8")
    done = dest("estimate", path, "--exact", "--label", "AABB", "--json")
    assert done.document["value"] == pytest.approx(exact(chain(), "ZZZZ"), abs=1e-10)


def test_plans_of_other_widths_stand_side_by_side(dest: Callable[..., Done], file: Path):
    plan = ("plan", file, "--max-qubits", 2, "--precision", 0.05)
    document = dest(*plan, "--json").document
    found = document["alternatives"]
    assert [(each["width"], each["num_cuts"]) for each in found] == [(1, 3), (2, 1), (4, 0)]
    assert found[0]["price"] > found[1]["price"] > found[2]["price"]
    assert found[0]["shots_total"] > found[1]["shots_total"] > found[2]["shots_total"]
    assert [each["option"] for each in found] == ["--max-qubits 1", "this plan", "whole"]
    assert all(each["fits"] for each in found)
    # No wider than what was asked for.
    assert document["verdict"]["least"] == found[1]
    rows = [line.split() for line in dest(*plan).out.splitlines()]
    for each in found:
        shots, this = str(each["shots_total"]), ["this"] * (each["option"] == "this plan")
        counts = each["width"], each["num_fragments"], each["num_cuts"], each["num_circuits"]
        assert [*this, *map(str, counts), shots, "yes"] in rows
    labelled = dest("plan", file, "--label", "ABBB", "--precision", 0.05, "--json").document
    assert [each["width"] for each in labelled["alternatives"]] == [1, 2, 3, 4]
    bills = [each["shots_total"] + 300 * each["num_circuits"] for each in labelled["alternatives"]]
    assert labelled["verdict"]["least"] == labelled["alternatives"][np.argmin(bills[:3])]


def test_a_plan_above_the_highest_price_is_refused_with_the_price_to_allow(
    dest: Callable[..., Done], file: Path
):
    plan = ("plan", file, "--max-qubits", 2, "--json", "--max-price")
    found = re.search(
        r"above `--max-price` 9: .*raise `--max-price` to (\S+)", refused(dest(*plan, 9))
    )
    assert found is not None
    document = dest(*plan, found[1]).document
    assert document["verdict"]["fits"]
    assert document["num_cuts"] == 1


def test_the_least_bill_is_of_plans_no_wider_than_asked_for(
    dest: Callable[..., Done], tmp_path: Path
):
    circuit = QuantumCircuit(16)
    circuit.h(range(16))
    for pair in combinations(range(16), 2):
        circuit.cz(*pair)
    path = tmp_path / "everything.qpy"
    path.write_bytes(as_qpy(circuit))
    out = " ".join(dest("plan", path, "--label", "AAAAAAAABBBBBBBB").out.split())
    assert "Verdict does not fit here, cut" in out
    assert "Shots not known for a precision of 0.015625" in out
    assert "Least bill none fits, of plans at most 8 wide" in out


def test_shots_of_plans_with_many_circuits_are_predicted(dest: Callable[..., Done], tmp_path: Path):
    circuit = QuantumCircuit(16)
    circuit.ry(0.4, range(16))
    for qubit in range(15):
        circuit.cx(qubit, qubit + 1)
    path = tmp_path / "chain.qpy"
    path.write_bytes(as_qpy(circuit))
    done = dest("plan", path, "--max-qubits", 2, "--precision", 0.1)
    document = dest("plan", path, "--max-qubits", 2, "--precision", 0.1, "--json").document
    narrow, own, *_ = document["alternatives"]
    assert narrow["num_circuits"] > 200
    factor = narrow["shots"] / own["shots"]
    assert narrow["shots_total"] == pytest.approx(own["shots_total"] * factor)
    assert f"~{int(float(format(narrow['shots_total'], '.3g')))}" in done.out


def test_the_price_of_other_widths_is_drawn(dest: Callable[..., Done], file: Path, tmp_path: Path):
    picture = tmp_path / "front.svg"
    plan = ("plan", file, "--shots", 10, "--front", picture)
    done = dest(*plan, "--max-qubits", 2)
    assert done.out.splitlines()[-1] == f"front {picture}"
    texts = {text.text for text in ElementTree.parse(picture).iter() if text.text}
    document = dest(*plan, "--max-qubits", 2, "--json").document
    assert document["front"] == str(picture)
    narrow = document["alternatives"][0]["circuits"]
    assert {f"3 cuts, {narrow} circuits", "1 cut, 10 circuits", "uncut, 1 circuit"} <= texts
    assert "give `--max-qubits N`" in refused(dest(*plan, "--label", "AABB"))
    both = ("--max-qubits", 2, "--front", picture, "--figure", picture)
    assert "both name" in refused(dest(*plan[:2], *both))
    nowhere = ("--front", tmp_path / "nowhere" / "front.svg")
    assert "nowhere" in refused(dest("plan", file, "--max-qubits", 2, "--shots", 10, *nowhere))
    pdf = tmp_path / "front.pdf"
    message = refused(dest("plan", file, "--max-qubits", 2, "--front", pdf))
    assert "give a file that ends in .svg or .png" in message


@pytest.mark.parametrize(
    "cut", [[], ["--label", "AAAA"], ["--label", "ABCD"], ["--max-qubits", "2"]]
)
@pytest.mark.parametrize("basis", ["full", "minimal"])
def test_exact_value_is_the_uncut_one(
    dest: Callable[..., Done], file: Path, cut: list[str], basis: str
):
    done = dest("estimate", file, "--exact", "--basis", basis, *cut, "--json")
    assert done.code == 0
    assert done.document["value"] == pytest.approx(exact(chain(), "ZZZZ"), abs=1e-10)
    assert done.document["stderr"] == pytest.approx(0)


def test_precision_and_shots_are_those_asked_for(dest: Callable[..., Done], file: Path):
    query = ("estimate", file, "--label", "AABB", "--json")
    document = dest(*query, "--precision", 0.01).document
    assert 0 < document["stderr"] <= 0.01
    assert abs(document["value"] - exact(chain(), "ZZZZ")) < 5 * 0.01
    first, again, other = (dest(*query, "--shots", 100, "--seed", n).document for n in (7, 7, 8))
    assert first["record"]["shots_total"] == 100 * first["record"]["num_subexperiments"]
    assert first["value"] == again["value"] != other["value"]


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("z_all", {"ZZZZ": 1}),
        ("z_one", {"ZIII": 1}),
        ("z_2", {"IZII": 1}),
        ("z_mean", {"ZIII": 0.25, "IZII": 0.25, "IIZI": 0.25, "IIIZ": 0.25}),
        ("0.5*ZZZZ - XXXX", {"ZZZZ": 0.5, "XXXX": -1}),
        ("-ZZZZ", {"ZZZZ": -1}),
        ("1e-8*ZZZZ + -9e-9*ZIII", {"ZZZZ": 1e-8, "ZIII": -9e-9}),
    ],
)
def test_observables_are_written_as_for_training(
    dest: Callable[..., Done], file: Path, text: str, terms: dict[str, float]
):
    query = (file, f"--observable={text}", "--label", "AABB", "--exact", "--json")
    document = dest("estimate", *query).document
    assert {term["paulis"]: term["weight"] for term in document["observables"][0]["terms"]} == terms
    expected = sum(weight * exact(chain(), paulis) for paulis, weight in terms.items())
    assert document["value"] == pytest.approx(expected, rel=1e-9)
    assert dest("plan", *query).document["num_circuits"] == document["record"]["num_circuits"]


def test_parameters_and_a_sum_of_paulis(dest: Callable[..., Done], symbolic: Path):
    done = dest(
        *("estimate", symbolic, "--exact", "--label", "AABB", "--json"),
        *("--parameter", "theta=0.4", "--observable", "0.5*ZIZI + -2e+0*IXXI+YIII"),
    )
    circuit = chain()
    parts = {"ZIZI": 0.5, "IXXI": -2.0, "YIII": 1.0}
    value = sum(weight * exact(circuit, paulis) for paulis, weight in parts.items())
    assert done.document["value"] == pytest.approx(value, abs=1e-10)
    assert done.document["observables"] == [
        {
            "name": "0.5*ZIZI + -2e+0*IXXI+YIII",
            "terms": [{"paulis": paulis, "weight": weight} for paulis, weight in parts.items()],
        }
    ]


def test_text_shows_value_error_and_stages(dest: Callable[..., Done], file: Path):
    done = dest("estimate", file, "--label", "AABB", "--shots", 100)
    assert " ± " in done.out
    for word in ("1 cut,", "2 fragments", "10 circuits", "partition", "reconstruct", "total"):
        assert word in done.out
    assert "(exact)" in dest("estimate", file, "--exact").out


@pytest.mark.parametrize("label", [(), ("--label", "AABB")])
def test_one_shot_has_a_standard_error(
    dest: Callable[..., Done], file: Path, label: tuple[str, ...]
):
    query = ("estimate", file, *label, "--shots", 1)
    first = dest(*query).out.splitlines()[0]
    assert re.fullmatch(r"value -?[0-9.]+ ± [0-9.]+", first)
    assert dest(*query, "--json").document["stderr"] > 0.3  # about 1 uncut, and more where cut


def test_a_sure_value_is_printed_with_an_error_of_zero(dest: Callable[..., Done], tmp_path: Path):
    circuit = QuantumCircuit(4)
    circuit.h(0)
    circuit.cx([0, 1, 2], [1, 2, 3])
    (tmp_path / "ghz.qasm").write_text(qasm2.dumps(circuit), "utf-8")
    done = dest("estimate", tmp_path / "ghz.qasm", "--label", "AABB", "--shots", 1000)
    assert done.out.startswith("value 1 ± 0\n")


def test_final_measurements_are_taken_off_with_a_note(dest: Callable[..., Done], tmp_path: Path):
    circuit = chain()
    circuit.measure_all()
    path = tmp_path / "measured.qasm"
    path.write_text(qasm2.dumps(circuit), "utf-8")
    done = dest("estimate", path, "--exact", "--json")
    assert done.document["value"] == pytest.approx(exact(chain(), "ZZZZ"), abs=1e-10)
    note = "4 measurements: final ones taken off, outcomes of others ignored"
    assert f"note: {note}" in done.err
    assert done.document["notes"] == [note]


@pytest.mark.parametrize("start", ["", "// A comment.\n/* Another. */\n", "OPENQASM 3;\n"])
def test_openqasm_3_needs_no_version(dest: Callable[..., Done], tmp_path: Path, start: str):
    """As its own examples are: no version, a reset at the start, a measurement at the end."""
    text = 'include "stdgates.inc"; qubit[2] q; bit[2] c; reset q; ry(0.7) q[0]; cx q[0], q[1];'
    path = tmp_path / "circuit.qasm"
    path.write_text(f"{start}{text} c = measure q;\n", "utf-8")
    done = dest("estimate", path, "--exact", "--observable", "IZ", "--label", "AB", "--json")
    assert done.document["value"] == pytest.approx(math.cos(0.7), abs=1e-10)
    assert done.document["notes"] == [
        "2 measurements: final ones taken off, outcomes of others ignored"
    ]


BAD_QUERIES = [
    (["--label", "AAB"], "`--label` labels 3 qubits, the circuit has 4: give one label per qubit"),
    (["--label", ""], "`--label` labels 0 qubits, the circuit has 4"),
    (["--max-qubits", "0"], "`--max-qubits` is 0: give a whole number of at least 1"),
    (["--max-qubits", "two"], "`--max-qubits` is two: give a whole number"),
    (["--label", "AABB", "--max-qubits", "2"], "all say where to cut: give one"),
    (["--max-price", "9"], "`--max-price` limits a search for cuts: give `--max-qubits` too"),
    (["--cut-at", "99"], "`--cut-at` names instruction 99, the circuit has"),
    (["--shots", "10", "--exact"], "exclude one another: give one"),
    (["--shots", "10", "--precision", "0.1"], "exclude one another: give one"),
    (["--observable", "ZZZ"], "acts on 3 qubits, the circuit has 4"),
    (["--observable", ""], "has the end as character 1, where a real weight"),
    (["--observable", "ZZAZ"], "the observable 'ZZAZ' has `AZ` as character 3"),
    (["--observable", "1e99*ZZZZ"], "the weight 1e+99 of ('ZZZZ', [0, 1, 2, 3])"),
    (["--observable", "z_4"], "z_4 is not on the circuit's 4 qubits: name one of z_0 to z_3"),
    (["--parameter", "theta"], "`--parameter theta` cannot be read: give NAME=VALUE"),
    (["--parameter", "x=nan"], "`--parameter x=nan`, x: 'nan' is no value; give a finite number"),
    (["--parameter", "x=1", "--parameter", " x = 1"], "gives x more than once: give each once"),
    (["--parameter", "phi=1"], "`--parameter` names phi, the circuit's parameters are: none"),
    (["--basis", "half"], "'half' is not one of 'full', 'minimal'"),
    (["--shots", "0"], "`--shots` is 0: give a whole number of at least 1"),
    (["--precision", "nan"], "`--precision` is nan: give a number of at least 0"),
    (["--precision", "1e308"], "`--precision` is 1e308: give a number of at least 0"),
    (["--seed", "-1"], "`--seed` is -1: give a whole number of at least 0"),
    (["--workers", "1000000000"], "`--workers` is 1000000000: give a whole number of at least 1"),
]


@pytest.mark.parametrize("verb", ["estimate", "plan"])
@pytest.mark.parametrize(("options", "message"), BAD_QUERIES)
def test_bad_options_of_a_query(
    dest: Callable[..., Done], file: Path, verb: str, options: list[str], message: str
):
    assert_refused(dest(verb, file, *options), message)


def test_a_number_may_begin_with_its_point(dest: Callable[..., Done], file: Path):
    short, full = (dest("estimate", file, "--precision", p, "--json") for p in (".1", "0.1"))
    assert short.document["value"] == full.document["value"]
    assert FieldType(Magnitudes).convert(".1,0,.25", None, None) == (0.1, 0.0, 0.25)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "no value for 1 of 1 parameters (theta)"),
        (["theta=-inf"], "give a finite number or a formula"),
        (["theta=1", "phi=2"], "names phi, the circuit's parameters are: theta"),
    ],
)
def test_bad_parameters(dest: Callable[..., Done], symbolic: Path, values: list[str], message: str):
    options = [part for value in values for part in ("--parameter", value)]
    assert_refused(dest("estimate", symbolic, *options), message)


# --- observables from a file

FORMS = {
    "lines": "# energy\n0.5 ZZII\n-0.25*IIXX  # hopping\n\nIIIZ 0.125\n",
    "with complex numbers": "(0.5+0j) ZZII\n-0.25+0j IIXX\n.125 IIIZ",
    "object": '{"ZZII": 0.5, "IIXX": -0.25, "IIIZ": 0.125}',
    "pairs": '[["ZZII", 0.5], ["IIXX", -0.25], ["IIIZ", 0.125]]',
}


@pytest.mark.parametrize("form", FORMS)
def test_an_observable_from_a_file(
    dest: Callable[..., Done], file: Path, tmp_path: Path, form: str
):
    (tmp_path / "energy").write_text(FORMS[form])
    options = ["--exact", "--label", "AABB", "--json", "--observable"]
    written = dest("estimate", file, *options, "0.5*ZZII - 0.25*IIXX + 0.125*IIIZ").document
    read = dest("estimate", file, *options, f"@{tmp_path / 'energy'}").document
    assert read["observables"][0]["terms"] == written["observables"][0]["terms"]
    assert read["observables"][0]["name"] == read["values"][0]["observable"] == "energy[0]"
    assert read["value"] == written["value"]


@pytest.mark.parametrize(
    "content", ["ZZII\n---\n2 IIZZ\n---\n", '[{"ZZII": 1}, [["IIZZ", 2]]]', '["ZZII", {"IIZZ": 2}]']
)
def test_several_observables_from_a_file(
    dest: Callable[..., Done], file: Path, tmp_path: Path, content: str
):
    (tmp_path / "two").write_text(content)
    options = ["--exact", "--observable", f"@{tmp_path / 'two'}"]
    both = dest("estimate", file, *options, "--json").document
    single = [
        dest("estimate", file, "--exact", "--observable", text, "--json").document["value"]
        for text in ("ZZII", "2*IIZZ")
    ]
    assert [own["value"] for own in both["values"]] == pytest.approx(single, abs=1e-12)
    assert [own["terms"][0]["paulis"] for own in both["observables"]] == ["ZZII", "IIZZ"]
    assert [own["observable"] for own in both["values"]] == ["ZZII", "two[1]"]
    lines = dest("estimate", file, *options).out.splitlines()
    assert [line.split()[:2] for line in lines[3:5]] == [["1", "ZZII"], ["1", "two[1]"]]
    assert dest("plan", file, *options, "--json").document["num_circuits"] == 1


BAD_OBSERVABLES = {
    "empty": ("# nothing\n", "holds no observable: give a line such as"),
    "letters": ("0.5 ZZIA", "has the Pauli string `'ZZIA'` (line 1): give 4 letters"),
    "width": ("ZZII\n\n0.5 ZZ", "has the Pauli string `'ZZ'` (line 3): give 4 letters"),
    "coefficient": ("half ZZII", "has the coefficient `'half'` (line 1): give a finite real"),
    "complex": ("1j ZZII", "has the coefficient `'1j'` (line 1)"),
    "infinite": ("1e999 ZZII", "has the coefficient `'1e999'` (line 1)"),
    "words": ("0.5 ZZII + XXII", "has `'0.5 ZZII + XXII'` in line 1: give a coefficient and"),
    "zero": ("0.5 ZZII\n-0.5 ZZII", "has an observable that is zero"),
    "binary": (b"\xff\xfe", "is no text"),
    "json": ('{"ZZII": 0.5', "begins as JSON does and is none: Expecting ',' delimiter: line 1"),
    "json, twice": ('{"ZZII": 0.5, "ZZII": 1}', "has 'ZZII' more than once in an object: add its"),
    "json, deep": ("[" * 100_000, "begins as JSON does and is none"),
    "json, no pairs": ('[["ZZII"]]', "has ['ZZII'] as observable 1: give an object"),
    "json, text": ('{"ZZII": "x"}', "has the coefficient `'x'` (observable 1)"),
    "json, not a number": ('{"ZZII": NaN}', "has the coefficient `nan` (observable 1)"),
    "large": (b"#" * (16 * 2**20 + 1), "holds more than 16 MiB, the most that is read"),
    "long": ("0.5 ZZII\n" * 200_001, "has an observable of 200001 terms, the most that is read"),
}


@pytest.mark.parametrize("kind", BAD_OBSERVABLES)
def test_bad_files_of_observables(dest: Callable[..., Done], file: Path, tmp_path: Path, kind: str):
    content, message = BAD_OBSERVABLES[kind]
    path = tmp_path / "bad"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert_refused(dest("estimate", file, "--observable", f"@{path}"), message)
    missing = dest("plan", file, "--observable", f"@{tmp_path / 'none'}")
    assert_refused(missing, "does not exist: name a file of observables")


# --- probabilities


def test_probabilities(dest: Callable[..., Done], file: Path, tmp_path: Path):
    options = ["--label", "AABB", "--probabilities", "3,0,1"]
    document = dest("estimate", file, *options, "--exact", "--json").document
    expected = Statevector(chain()).probabilities([3, 0, 1])
    assert document["probabilities"] == pytest.approx(expected, abs=1e-10)
    assert document["nearest"] == pytest.approx(expected, abs=1e-10)
    assert document["qubits"] == [3, 0, 1]
    lines = dest("estimate", file, *options, "--exact").out.splitlines()
    rows = [line.split() for line in lines if re.match(r" *[01]{3} ", line)]
    assert [row[0] for row in rows] == [f"{outcome:03b}" for outcome in range(8)]
    assert [float(row[1]) for row in rows] == pytest.approx(expected, abs=1e-10)
    options += ["--precision", "0.02", "--trace", str(tmp_path / "trace"), "--json"]
    sampled = dest("estimate", file, *options).document
    assert 0.01 < max(sampled["stderrs"]) <= 0.02
    assert sampled["record"]["precision"] == 0.02
    assert set(sampled["files"]) == {"tasks", "queries", "trace"}


def test_many_outcomes(dest: Callable[..., Done], tmp_path: Path):
    circuit = QuantumCircuit(6)
    circuit.ry(0.5, range(6))
    (tmp_path / "six.qpy").write_bytes(as_qpy(circuit))
    done = dest("estimate", tmp_path / "six.qpy", "--probabilities", "0,1,2,3,4,5", "--exact")
    assert "note: the 32 most probable of 64 outcomes; --json and --csv have all" in done.err
    assert sum(bool(re.match(r" *[01]{6} ", line)) for line in done.out.splitlines()) == 32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--probabilities", "4"], "`--probabilities` has 4: give numbers from 0 to 3"),
        (["--probabilities", "1,1"], "`--probabilities` has 1 more than once"),
        (["--probabilities", "a"], "`--probabilities` is a: give"),
        (["--probabilities", "0", "--observable", "ZZZZ"], "both say what to estimate: give one"),
    ],
)
def test_bad_probabilities(dest: Callable[..., Done], file: Path, options: list[str], message: str):
    assert_refused(dest("estimate", file, *options), message)


# --- files


class _Harmful:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_pickled_objects_in_a_qpy_file_are_not_loaded(
    dest: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    circuit = QuantumCircuit(2)
    circuit.append(PauliEvolutionGate(SparsePauliOp("ZZ"), 0.3), [0, 1])
    save, harmful = np.save, np.array([_Harmful(tmp_path / "harm")], dtype=object)
    with monkeypatch.context() as patched:
        patched.setattr("numpy.save", lambda stream, _: save(stream, harmful, allow_pickle=True))
        (tmp_path / "bad.qpy").write_bytes(as_qpy(circuit))
    assert_refused(dest("estimate", tmp_path / "bad.qpy"), "is no readable QPY file")
    assert not (tmp_path / "harm").exists()


def as_qpy(*circuits: QuantumCircuit, version: int | None = None) -> bytes:
    stream = io.BytesIO()
    qpy.dump(list(circuits), stream)
    content = bytearray(stream.getvalue())
    if version is not None:
        content[6] = version
    return bytes(content)


HEADER_2 = 'OPENQASM 2.0;\ninclude "qelib1.inc";\n'
HEADER_3 = 'OPENQASM 3.0;\ninclude "stdgates.inc";\n'
BIT_2, BIT_3 = f"{HEADER_2}qreg q[1]; ", f"{HEADER_3}qubit q; "
NO_2, NO_3 = "no readable OpenQASM 2: line 3, column ", "no readable OpenQASM 3: line "
DOUBLED = "gate g0 a { h a; }\n" + "\n".join(
    f"gate g{i} a {{ g{i - 1} a; g{i - 1} a; }}" for i in range(1, 41)
)
WRITTEN_OUT = "operations once its gates are written out"
CUT_SHORT = "is no readable QPY file: it is cut short or damaged, save it again"
GUESSED = (
    "no readable OpenQASM 3, which a file that names no version is taken for: line 1, column 8"
)
BAD_FILES: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "is neither QPY nor OpenQASM"),
    "prose": ("circuit, please", GUESSED),
    "binary": (b"\xff\xfe\x00\x01", "is neither QPY nor OpenQASM text"),
    "comments": ("/**/" * 5000, "is neither QPY nor OpenQASM"),
    "version": ("OPENQASM 4.0;\nqubit q;", "is OpenQASM 4: versions 2 and 3 are read"),
    "unknown gate 2": (f"{BIT_2}wobble q[0];", f"{NO_2}12: 'wobble' is not defined"),
    "unknown gate 3": (f"{BIT_3}wobble q;", f"{NO_3}3, column 10: gate 'wobble' is not defined"),
    "cut short 2": (f"{BIT_2}h q", f"{NO_2}12: "),
    "cut short 3": (f"{BIT_3}h", f"{NO_3}3, column 11: the end of the file is not expected there"),
    "syntax 3": (
        f"{HEADER_3}qubit[2] q;\nh q[0]\n  cx q[0], q[1];",
        f"{NO_3}5, column 3: `cx` is not expected there",
    ),
    "index 3": (f"{HEADER_3}qubit[2] q;\nh q[2];", f"{NO_3}4, column 3: index out of range"),
    "escape code 3": (
        f"{BIT_3}\x1b[31m h q;",
        f"{NO_3}3, column 10: token recognition error at: '\\x1b'",
    ),
    "escape code 2": (f"{BIT_2}\x1b[31m h q;", f"{NO_2}12: encountered '\\x1b'"),
    "too deep": (f"{HEADER_3}float x = " + "(" * 5000, "no readable OpenQASM 3"),
    "no qubits": ("OPENQASM 2.0;\n", "without qubits"),
    "too wide 2": ("OPENQASM 2.0; qreg q[99999999999];", "declares 99999999999 bits"),
    "too wide 3": ("OPENQASM 3.0; qubit[99999999999] q;", "declares 99999999999 bits"),
    "too wide, a product": ("OPENQASM 3.0; qubit[9999 * 9999] q;", "declares '9999 * 9999' bits"),
    "too wide, a comment": ("OPENQASM 3.0; qubit[/**/99999] q;", "declares 99999 bits"),
    "too wide, hexadecimal": ("OPENQASM 3.0; bit[0xFFFF] c;", "declares 65535 bits"),
    "include": ('OPENQASM 2.0; include "/etc/hosts"; qreg q[1];', "no readable OpenQASM 2"),
    "include 3": ('OPENQASM 3.0; include "/etc/hosts"; qubit q;', "no readable OpenQASM 3"),
    "doubled 2": (f"{HEADER_2}{DOUBLED} qreg q[1]; g40 q[0];", WRITTEN_OUT),
    "doubled 3": (f"{HEADER_3}{DOUBLED} qubit q; g40 q;", WRITTEN_OUT),
    "qpy, magic alone": ("QISKIT", "QPY version 0"),
    "qpy, cut short": (as_qpy(chain())[:60], f"(60 bytes) {CUT_SHORT}"),
    "qpy, damaged": (as_qpy(chain())[:100] + b"\xff" * 99, f"(199 bytes) {CUT_SHORT}"),
    "qpy, newer": (as_qpy(chain(), version=200), "is no readable QPY file"),
    "qpy, older": (as_qpy(chain(), version=12), "QPY version 12, and versions before 13"),
    "qpy, two": (as_qpy(chain(), chain()), "holds 2 circuits"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_files(dest: Callable[..., Done], tmp_path: Path, kind: str):
    content, message = BAD_FILES[kind]
    (tmp_path / "circuit.qasm").write_bytes(
        content if isinstance(content, bytes) else content.encode()
    )
    done = dest("plan", tmp_path / "circuit.qasm")
    assert_refused(done, message)
    assert "circuit.qasm" in done.err
    assert done.err.strip().isprintable()


def test_files_that_are_none_or_too_long(
    dest: Callable[..., Done], file: Path, monkeypatch: pytest.MonkeyPatch
):
    assert_refused(dest("estimate", file.with_name("absent.qasm")), "does not exist")
    assert_refused(dest("estimate", file.parent), "is not a regular file")
    assert_refused(dest("estimate", "seed"), "`seed` does not exist")  # and no option
    monkeypatch.setattr(_files, "MAX_BYTES", file.stat().st_size)
    assert dest("plan", file).code == 0
    monkeypatch.setattr(_files, "MAX_BYTES", file.stat().st_size - 1)
    assert_refused(dest("plan", file), "the most that is read")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("h q[0]; measure q[0] -> c[0]; h q[0];", 0.0),
        ("reset q[0]; rx(0.3) q[0];", math.cos(0.3)),
        ("if (c==1) h q[0];", "classical control"),
    ],
)
def test_measurements_and_resets_in_a_file(
    dest: Callable[..., Done], tmp_path: Path, lines: str, expected: float | str
):
    path = tmp_path / "circuit.qasm"
    text = f"{HEADER_2}qreg q[2]; creg c[2]; cx q[0],q[1]; {lines} cx q[0],q[1];"
    path.write_text(text, "utf-8")
    options = "--observable", "IZ", "--label", "AB"
    if isinstance(expected, str):
        for verb in ("estimate", "plan"):
            assert_refused(dest(verb, path, *options), expected)
        return
    value = dest("estimate", path, *options, "--exact", "--json").document["value"]
    assert value == pytest.approx(expected, abs=1e-10)
    assert "┤ " in dest("plan", path, *options, "--draw").out


# --- dest plan


def test_predict_is_the_old_name_of_costs(dest: Callable[..., Done]):
    old, new = dest("predict", "--costs", "nowhere"), dest("costs", "--costs", "nowhere")
    assert old.code == new.code == 2
    assert old.err.startswith("note: `dest predict` is called `dest costs`")
    assert old.err.endswith(new.err)
    shown = dest().out
    assert "  costs " in shown
    assert "predict " not in shown.replace("Predict ", "")


def test_plan_says_what_estimate_then_runs(dest: Callable[..., Done], file: Path):
    options = ("--label", "AABC", "--observable", "ZZZZ + XXII", "--shots", 10, "--json")
    plan = dest("plan", file, *options).document
    record = dest("estimate", file, *options).document["record"]
    for field in ("num_cuts", "num_fragments", "num_circuits", "shots_total"):
        assert plan[field] == record[field], field
    assert [fragment["qubits"] for fragment in plan["fragments"]] == [[0, 1], [2], [3]]
    assert [cut["qubits"] for cut in plan["cuts"]] == [[1, 2], [2, 3]]
    assert plan["sampling_overhead"] == pytest.approx(81)
    query = ("plan", file, "--label", "AABB", "--json")
    bases = [dest(*query, "--basis", basis).document for basis in ("full", "minimal")]
    assert [each["num_circuits"] for each in bases] == [10, 6]
    cone = dest(*query, "--observable", "IIIZ").document
    assert (cone["num_cuts"], [each["qubits"] for each in cone["fragments"]]) == (0, [[0, 1]])


@pytest.fixture
def star(tmp_path: Path) -> Path:
    """One qubit that is cut from each of 60 others."""
    circuit = QuantumCircuit(61)
    for qubit in range(1, 61):
        circuit.cx(0, qubit)
    (tmp_path / "star.qpy").write_bytes(as_qpy(circuit))
    return tmp_path / "star.qpy"


def test_numbers_beyond_reading_are_shortened(dest: Callable[..., Done], star: Path):
    label = ("--label", "A" + "B" * 60)
    done = dest("plan", star, *label, "--shots", 10)
    assert "8.67e+41 a binding" in done.out
    document = dest("plan", star, *label, "--json").document
    assert document["num_circuits"] == pytest.approx(5.0**60)
    assert document["num_cuts"] == 60


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """Forty qubits in a row, all but the last five entangled as much as can be."""
    circuit = QuantumCircuit(40)
    for layer in range(40):
        circuit.rx(0.3, range(35))
        for qubit in range(layer % 2, 34, 2):
            circuit.rzz(0.4, qubit, qubit + 1)
    for qubit in range(39):
        circuit.cx(qubit, qubit + 1)
    (tmp_path / "wide.qpy").write_bytes(as_qpy(circuit))
    return tmp_path / "wide.qpy"


@pytest.mark.parametrize("accuracy", [("--exact",), ("--shots", 100), ("--precision", 0.1)])
@pytest.mark.parametrize(
    ("name", "label", "needs", "remedy"),
    [
        ("wide", None, "64 TiB", "); cut it into narrower fragments\n"),
        (
            "wide",
            "A" * 35 + "B" * 5,
            "4 TiB",
            "); cut fewer gates of that fragment, or give it fewer qubits\n",
        ),
        ("star", "A" + "B" * 60, "EiB", "); cut fewer gates of that fragment\n"),
    ],
)
def test_plan_refuses_what_estimate_does(
    dest: Callable[..., Done],
    request: pytest.FixtureRequest,
    accuracy: tuple[object, ...],
    name: str,
    label: str | None,
    needs: str,
    remedy: str,
):
    """With the same numbers, and remedies that apply: none that cut less where nothing is cut."""
    query = [request.getfixturevalue(name), *accuracy]
    query += [] if label is None else ["--label", label]
    refused = dest("estimate", *query)
    assert_refused(refused, f"the plan needs {needs}" if name == "wide" else needs)
    assert "of memory, the limit is " in refused.err
    assert "(half of what is free)" in refused.err
    assert refused.err.endswith(remedy)
    text = dest("plan", *query)
    assert (text.code, text.err) == (0, "")
    way = "whole" if label is None else "cut"
    assert text.out.splitlines()[0].split() == f"Verdict does not fit here, {way}".split()
    words = " ".join(text.out.split())
    assert "Why the plan needs " in words
    assert " ".join(remedy.split()) in words
    document = dest("plan", *query, "--json").document
    assert not document["fits"]
    assert document["refusal"].endswith(remedy.strip())
    assert document["memory_bytes"] is None or (
        document["memory_bytes"] > document["memory_limit_bytes"]
    )


@pytest.mark.parametrize("label", ["AABB", "AAAA"])
@pytest.mark.parametrize("option", ["--shots-total", "--max-shots"])
def test_plan_refuses_as_few_shots_as_estimate_does(
    dest: Callable[..., Done], file: Path, option: str, label: str
):
    query = [file, "--label", label]
    circuits = dest("plan", *query, "--json").document["num_circuits"]
    too_few = [*query, option, circuits - 1]
    if circuits > 1:
        planned = dest("plan", *too_few)
        assert_refused(planned, f"`{option}` is {circuits - 1}, and {circuits} circuits are to run")
        assert planned.err == dest("estimate", *too_few).err
    assert dest("plan", *query, option, circuits, "--json").document["fits"]


def test_plan_says_that_a_plan_fits(dest: Callable[..., Done], file: Path):
    query = (file, "--label", "AABB", "--exact")
    document = dest("plan", *query, "--json").document
    assert document["fits"]
    assert document["refusal"] is None
    assert 0 < document["memory_bytes"] < document["memory_limit_bytes"]
    first, _, memory, *_ = dest("plan", *query).out.splitlines()
    assert first.split() == ["Verdict", "fits", "here,", "cut"]
    size = r"[0-9.]+ .iB"
    assert re.fullmatch(rf"Memory +{size} of at most {size}, half of what is free *", memory)


@pytest.mark.parametrize("precision", [(), ("--precision", 0.1), ("--precision", 0.01)])
def test_plan_says_what_a_precision_takes(
    dest: Callable[..., Done], file: Path, precision: tuple[object, ...]
):
    query = (file, "--label", "AABB", *precision)
    plan = dest("plan", *query, "--json").document
    assert plan["shots_total"] is None
    price = plan["price"]
    assert price["circuits"] == plan["num_circuits"] == 10
    assert 0 < price["optimal"] <= price["neyman"] <= price["uniform"]
    out = " ".join(dest("plan", *query).out.split())
    named = f"{precision[1]:g}" if precision else "0.015625 (the default)"
    assert f"Shots about {price['optimal']} for a precision of {named} Circuits 10 a" in out
    totals = ", ".join(f"{name} {price[name]}" for name in ("optimal", "neyman", "uniform"))
    assert f"Allocation {totals} Least bill" in out
    record = dest("estimate", *query, "--json").document["record"]
    assert 0.5 <= record["shots_total"] / price["optimal"] <= 2  # other draws of the pilot


@pytest.mark.parametrize("verb", ["estimate", "plan"])
@pytest.mark.parametrize("limit", [["--shots-total", "5"], ["--max-shots", "5"]])
def test_too_few_shots_for_the_circuits(
    dest: Callable[..., Done], file: Path, verb: str, limit: list[str]
):
    done = dest(verb, file, "--label", "AABB", *limit)
    assert_refused(done, "is 5, and 10 circuits are to run: give at least 10, one shot each")


def test_plan_of_a_hub_whose_settings_are_drawn(dest: Callable[..., Done], tmp_path: Path):
    circuit = QuantumCircuit(9)
    circuit.ry(0.7, range(9))
    circuit.cz(0, range(1, 9))
    path = tmp_path / "hub.qpy"
    path.write_bytes(as_qpy(circuit))
    options = "--label", "ABCDEFGHI", "--precision", "0.1"
    plan = dest("plan", path, *options, "--json").document
    assert plan["fits"]
    assert plan["price"]["neyman"] is plan["price"]["uniform"] is None
    assert 0 < plan["price"]["circuits"] <= plan["price"]["optimal"] < plan["num_circuits"]
    out = dest("plan", path, *options).out
    assert f"{plan['price']['circuits']} a binding" in out
    assert "drawn at random" in out


@pytest.mark.parametrize("verb", ["estimate", "plan"])
def test_precisions_that_nothing_meets_and_angles_that_are_none(
    dest: Callable[..., Done], file: Path, verb: str
):
    for precision in ("1e-20", "1e-309"):
        done = dest(verb, file, "--precision", precision)
        assert_refused(done, "1e+12 is the most: ask for a larger precision, or 0")
    circuit = QuantumCircuit(1)
    circuit.ry(Parameter("x").arcsin(), 0)
    file.write_bytes(as_qpy(circuit))
    done = dest(verb, file, "--parameter", "x=2")
    assert_refused(done, "the gate angle `asin(x)` is not a finite real number")


def test_plan_is_drawn_where_that_is_asked_for(dest: Callable[..., Done], file: Path):
    query = ("plan", file, "--label", "AABC", "--shots", 100)
    out = dest(*query).out
    for word in ("Fragments", "Cuts", "0-1", "3 fragments of at most 2", "2 cuts", "100 a circuit"):
        assert word in out, word
    assert "✂" not in out
    assert "✂" not in dest(*query, "--figure", file.with_suffix(".svg")).out
    drawn = dest(*query, "--draw").out
    assert "✂0 cx" in drawn
    assert "✂1" in drawn


def full(layers: int) -> QuantumCircuit:
    circuit = QuantumCircuit(20)
    for _ in range(layers):
        circuit.ry(0.4, range(20))
        for first in range(20):
            for second in range(first + 1, 20):
                circuit.cx(first, second)
    return circuit


def ring(qubits: int) -> QuantumCircuit:
    circuit = QuantumCircuit(qubits)
    circuit.h(range(qubits))
    for qubit in range(qubits):
        circuit.rzz(0.7, qubit, (qubit + 1) % qubits)
    circuit.rx(0.9, range(qubits))
    return circuit


LENGTHY = {
    "all to all": (full(1), ("--label", "A" * 10 + "B" * 10)),
    "whole": (full(1), ()),
    "GHZ": (chain(30), ("--max-qubits", 2)),
    "ring": (ring(12), ("--label", "AAABBBCCCDDD")),
}


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize("name", LENGTHY)
def test_the_verdict_comes_first_and_no_table_is_long(
    name: str,
    columns: int,
    dest: Callable[..., Done],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("COLUMNS", str(columns))
    circuit, options = LENGTHY[name]
    path = tmp_path / "circuit.qpy"
    path.write_bytes(as_qpy(circuit))
    lines = dest("plan", path, *options, "--shots", 100).out.splitlines()
    assert max(map(len, lines)) <= columns
    first = [line.split()[0] for line in lines[: 12 if columns >= 80 else 16] if line.split()]
    for word in ("Verdict", "Circuit", "Shots", "Circuits", "Least", "Seconds"):
        assert word in first
    tables = "\n".join(line.strip() for line in lines).split("\n\n")
    assert max(len(table.splitlines()) for table in tables) <= 25


def test_plan_draws_wire_cuts(dest: Callable[..., Done], tmp_path: Path):
    circuit = QuantumCircuit(5)
    for first, second in ((0, 1), (1, 2), (0, 2), (2, 3), (3, 4), (2, 4)):
        circuit.ry(0.3, first)
        circuit.cx(first, second)
    (tmp_path / "circuit.qpy").write_bytes(as_qpy(circuit))
    done = dest("plan", tmp_path / "circuit.qpy", "--max-qubits", 3, "--draw")
    assert "wire" in done.out
    assert "✂0 cut_wire" in done.out
    value = dest("estimate", tmp_path / "circuit.qpy", "--max-qubits", 3, "--exact", "--json")
    assert value.document["value"] == pytest.approx(exact(circuit, "ZZZZZ"), abs=1e-10)


def test_plan_cuts_by_number(dest: Callable[..., Done], tmp_path: Path):
    circuit = QuantumCircuit(4)
    for qubit in range(4):
        circuit.ry(0.3, qubit)
        circuit.cx(qubit, (qubit + 1) % 4)
    (tmp_path / "ring.qpy").write_bytes(as_qpy(circuit))
    query = (tmp_path / "ring.qpy", "--cut-at", "7")
    done = dest("plan", *query, "--shots", 10, "--draw")
    assert "✂0 cx" in done.out
    document = dest("plan", *query, "--json").document
    assert (document["num_cuts"], document["num_circuits"]) == (1, 25)
    assert document["cuts"][0]["fragments"] == [0, 0]
    value = dest("estimate", *query, "--exact", "--json").document["value"]
    assert value == pytest.approx(exact(circuit, "ZZZZ"), abs=1e-10)
    refusal = refused(dest("plan", *query[:2], "0"))
    assert "instruction 0 (`ry`), in which there is nothing to cut" in refusal


def test_a_mark_that_cuts_nothing_is_not_drawn():
    circuit = QuantumCircuit(3)
    circuit.cx(0, 1)
    circuit.append(CutWire(), [1])
    circuit.cx(0, 1)
    circuit.cx(1, 2)
    drawing = draw_cuts(CutPlan.build(circuit, "AAB"))
    assert [item.operation.name for item in drawing.data] == ["cx", "cx", "✂0 cx"]


def test_names_in_a_file_do_not_reach_the_terminal_raw(dest: Callable[..., Done], tmp_path: Path):
    circuit = QuantumCircuit(2)
    gate = UnitaryGate(np.diag([1, 1, 1, -1]), label="\x1b[31m[/bold]")
    gate.name = "\x1b[31m[/bold]"
    circuit.append(gate, [0, 1])
    circuit.h(0)
    circuit.append(gate, [0, 1])
    (tmp_path / "circuit.qpy").write_bytes(as_qpy(circuit))
    for options in ([], ["--label", "AB"]):
        done = dest("plan", tmp_path / "circuit.qpy", *options, "--draw")
        assert "\x1b" not in done.out + done.err


# --- dest train


def test_train_reports_and_keeps_a_run_and_goes_on(dest: Callable[..., Done]):
    done = dest("train", "iris", "--cuts", 2, "--shots", 64, "--maxiter", 2, "--no-figure")
    assert done.code == 0
    for word in ("iris_binary_pml, cut AABC, 64 shots", "test accuracy", "reconstruct"):
        assert word in done.out, word
    assert "loss" in done.err
    summary = json.loads(Path("runs/iris/summary.json").read_text("utf-8"))
    assert summary["config"]["shots"] == 64
    again = dest("train", "--resume", "runs/iris", "--json").document
    assert (again["final"], again["run_id"]) == (summary["final"], summary["run_id"])
    assert Path("runs/iris/training.png").read_bytes().startswith(PNG)


def test_train_prints_one_json_document_and_writes_curves(dest: Callable[..., Done]):
    options = ("--exact", "--maxiter", 1, "--no-figure", "--json")
    tracks = ("--track", "tensorboard", "--track", "mlflow")
    document = dest("train", "iris", *options, *tracks, "--out", "run").document
    assert document["config"]["shots"] is None
    assert document["totals"]["shots"] == 0
    assert set(document["stages"]) == {"partition", "generate", "execute", "reconstruct", "total"}
    files = {"queries", "training", "data", "checkpoint", "weights", "summary"}
    assert set(document["files"]) == files
    assert all(Path(path).exists() for path in document["files"].values())
    assert document["files"]["summary"] == str(Path("run/summary.json"))
    assert list(Path("run/tensorboard").glob("events.out.tfevents.*"))
    assert Path("run/mlruns").is_dir()


def test_train_passes_its_options_on(dest: Callable[..., Done]):
    config = dest(
        *("train", "digits", "--features", 4, "--reduction", "pool", "--classes", "1,7"),
        *("--samples", 10, "--test-samples", 4, "--feature-map", "angle"),
        *("--feature-map-reps", 1, "--ansatz", "two_local", "--ansatz-reps", 2),
        *("--entanglement", "pairwise", "--observable", "z_each", "--head", "linear"),
        *("--label", "AABB", "--shots", 8, "--epochs", 1, "--batch-size", 5, "--workers", 2),
        *("--optimizer", "sgd", "--lr", 0.2, "--loss", "cross_entropy", "--basis", "minimal"),
        *("--seed", 3, "--no-figure", "--json"),
    ).document["config"]
    workload = WorkloadConfig(
        "digits",
        num_features=4,
        reduction="pool",
        classes=("1", "7"),
        samples=10,
        test_samples=4,
        feature_range=(0.0, math.pi),
        seed=3,
    )
    model = ModelConfig("angle", 1, "two_local", 2, "pairwise", observable="z_each")
    expected = TrainingConfig(
        workload,
        model,
        label="AABB",
        shots=8,
        optimizer="sgd",
        epochs=1,
        batch_size=5,
        loss="cross_entropy",
        lr=0.2,
        head="linear",
        workers=2,
        seed=3,
        setting_basis="minimal",
    )
    assert TrainingConfig.from_dict(config) == expected


@pytest.mark.parametrize(
    ("options", "epochs", "batch_size", "lr"),
    [
        (["iris"], 60, None, 0.1),
        (["iris", "--maxiter", "5"], 5, None, 0.1),
        (["iris", "--optimizer", "lbfgs"], 60, None, 1.0),
        (["mnist"], 10, 32, 0.1),
        (["mnist", "--maxiter", "5"], 5, None, 0.1),
        (["mnist", "--batch-size", "50", "--epochs", "3"], 3, 50, 0.1),
        (["mnist", "--optimizer", "spsa", "--maxiter", "7"], 7, None, 0.1),
        (["mnist", "--optimizer", "cobyla"], 60, None, 0.1),
    ],
)
def test_budgets_are_those_of_the_paper_unless_told(
    monkeypatch: pytest.MonkeyPatch, options: list[str], epochs: int, batch_size: int, lr: float
):
    seen = []
    monkeypatch.setattr(train_command, "_train", lambda config, *_: seen.append(config))
    monkeypatch.setattr(train_command, "_report", lambda *_, **__: None)
    assert main(["train", *options]) == 0
    (config,) = seen
    assert (config.epochs, config.batch_size, config.lr) == (epochs, batch_size, lr)


def test_warnings_of_the_library_are_shown(
    dest: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
):
    def warn(*_: object) -> None:
        logging.getLogger("distributed_estimator.training.tracking").warning("mlflow is gone")
        raise InputError("no")

    monkeypatch.setattr(train_command, "_train", warn)
    done = dest("train", "iris")
    assert done.err == "dest: WARNING: mlflow is gone\ndest: no\n"


def test_train_takes_a_file_of_the_users(dest: Callable[..., Done]):
    rows = [f"{i % 7},{(i * i) % 5},{'yes' if i % 2 else 'no'}" for i in range(20)]
    Path("survey.csv").write_text("\n".join(["a,b,answer", *rows]), "utf-8")
    done = dest("train", "survey.csv", "--maxiter", 1, "--cuts", 1, "--no-figure", "--json")
    assert done.document["workload"] == "survey.csv"
    assert Path("runs/survey/summary.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "`nowhere` holds no checkpoint.safetensors: name the folder of a run"),
        (["--cuts", "1"], "goes on with a run as it was configured: leave out `--cuts`"),
        (["--lr", "0.1", "--exact"], "leave out `--lr`, `--exact`"),
    ],
)
def test_bad_ways_to_go_on(dest: Callable[..., Done], options: list[str], message: str):
    assert_refused(dest("train", "--resume", "nowhere", *options), message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cuts", "4"], "`--cuts` is 4, and a chain of 4 qubits takes 0 to 3 cuts"),
        (["--cuts", "-1"], "`--cuts` is -1: give a whole number of at least 0"),
        (
            ["--cuts", "1", "--label", "AABB"],
            "`--label` and `--max-qubits` exclude one",
        ),
        (
            ["--label", "AAB"],
            "`--label` has 3 letters, the circuit has 4 qubits: give one letter a",
        ),
        (["--shots", "0"], "`--shots` is 0: give a whole number of at least 1"),
        (["--shots", "1.5"], "`--shots` is 1.5: give a whole number"),
        (["--workers", "1000000000"], "`--workers` is 1000000000: give a whole number of at least"),
        (["--workers", "9" * 20], "`--workers` is 99999999999999999999: give a whole number"),
        (["--feature-map-reps", "1000000"], "`--feature-map-reps` is 1000000: give a whole number"),
        (["--feature-map-reps", "9" * 20], f"`--feature-map-reps` is {'9' * 20}: give a whole"),
        (["--shots", "10", "--exact"], "exclude one another: give one"),
        (["--shots-total", "10", "--shots", "10"], "exclude one another: give one"),
        (["--shots-total", "10", "--exact"], "exclude one another: give one"),
        (["--adaptive-shots", "0.6", "--shots", "9"], "exclude one another: give one"),
        (["--adaptive-shots", "0.6", "--exact"], "exclude one another: give one"),
        (
            ["--adaptive-shots", "0.6"],
            "`--adaptive-shots` is 0.6, and `--shots-total` is not given",
        ),
        (["--adaptive-shots", "2"], "`--adaptive-shots` is 2: give a ratio above 0 and below 1"),
        (["--max-shots", "0"], "`--max-shots` is 0: give a whole number of at least 1"),
        (["--epochs", "0"], "`--epochs` is 0"),
        (["--epochs", "1", "--maxiter", "1"], "exclude one another: give one"),
        (["--maxiter", "1", "--batch-size", "4"], "with `--batch-size` give `--epochs`"),
        (["--maxiter", "9", "--optimizer", "cobyla"], "COBYLA takes 10 evaluations"),
        (["--optimizer", "newton"], "'newton' is not one of 'adam', 'sgd', 'lbfgs'"),
        (["--lr", "0"], "`--lr` is 0: give a positive learning rate"),
        (["--seed", "-1"], "`--seed` is -1"),
        (
            ["--classes", "1"],
            "`--classes` is ('1',): give the names of two or more different classes",
        ),
        (["--classes", "4"], "`--classes` is 4, and workload `iris_binary_pml` has 3 (setosa, "),
        (["--features", "9"], "`--features` is 9"),
        (["--track", "paper"], "'paper' is not one of 'tensorboard', 'mlflow'"),
        (["--pipeline", "reference", "--exact"], "the reference pipeline has no exact values"),
        (["--pipeline", "reference", "--slow-worker", "1"], "leave `--slow-worker` out"),
    ],
)
def test_bad_options_of_train(dest: Callable[..., Done], options: list[str], message: str):
    assert_refused(dest("train", "iris", *options), message)


@pytest.mark.parametrize("begun", [False, True])
def test_an_interrupted_training_names_a_folder_that_can_be_gone_on_from(
    dest: Callable[..., Done], monkeypatch: pytest.MonkeyPatch, begun: bool
):
    def interrupt(task: object, config: object, folder: RunFolder, **_: object) -> None:
        if begun:
            folder.path.mkdir(parents=True)
            folder.checkpoint.touch()
        raise KeyboardInterrupt

    monkeypatch.setattr("distributed_estimator.training.loop.train", interrupt)
    done = dest("train", "iris", "--out", "my run", "--no-figure")
    assert (done.code, done.out) == (130, "")
    remark = "note: go on with: dest train --resume 'my run'\n" if begun else ""
    assert done.err == f"{remark}\ndest: interrupted\n"


def test_train_leaves_another_run_alone(dest: Callable[..., Done], tmp_path: Path):
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "summary.json").write_text("theirs", "utf-8")
    done = dest("train", "iris", "--out", taken)
    assert_refused(done, "taken` already holds a run (summary.json): name another folder")
    assert [path.read_text("utf-8") for path in taken.iterdir()] == ["theirs"]
    assert_refused(dest("train", "iris", "--out", taken / "summary.json"), "is a file")


def path_parameters() -> list[tuple[tuple[str, ...], click.Parameter]]:
    """Every argument and option of the command that takes a path, with the verb it is of."""

    def below(command: click.Command, words: tuple[str, ...]) -> Iterator[Any]:
        for parameter in command.params:
            if isinstance(parameter.type, click.Path):
                yield words, parameter
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                verb = command.get_command(context, name)
                assert verb is not None
                yield from below(verb, (*words, name))

    return list(below(command, ()))


@pytest.mark.parametrize(
    ("words", "parameter"),
    path_parameters(),
    ids=lambda part: " ".join(part) if isinstance(part, tuple) else str(part.name),
)
def test_an_empty_path_is_refused(
    dest: Callable[..., Done], words: tuple[str, ...], parameter: click.Parameter
):
    option = isinstance(parameter, click.Option)
    needed = {"predict": ["x.qasm"], "costs": ["x.qasm"], "study run": ["paper"]}.get(
        " ".join(words), ["."]
    )
    given = [*(needed if option else []), *([parameter.opts[0]] if option else []), ""]
    assert_refused(dest(*words, *given), "it is empty: name a file or folder (`.` is the", Path())


def test_paths_of_all_verbs_are_checked():
    known = {(*words, parameter.name) for words, parameter in path_parameters()}
    assert known >= {
        *{("estimate", name) for name in ("file", "trace", "journal")},
        *{("train", name) for name in ("out", "resume", "data_dir")},
        *{("costs", name) for name in ("file", "sources", "target")},
        *{(verb, "folder") for verb in ("report", "robustness")},
        *{(verb, "out") for verb in ("report", "robustness")},
        *{("plan", "file"), ("records", "path"), ("simulate", "records")},
        *{("study", "run", "source"), ("study", "run", "out")},
        *{("study", verb, name) for verb in ("report", "pack") for name in ("folder", "out")},
    }


FILES = (
    ("report", "{run}", "--out"),
    ("costs", "--costs", "{run}", "--fit"),
    ("robustness", "{run}", "--out"),
    ("estimate", "{circuit}", "--journal"),
)
FOLDERS = (
    ("study", "report", "{study}", "--out"),
    ("study", "pack", "{study}", "--out"),
    ("estimate", "{circuit}", "--trace"),
    ("train", "iris", "--out"),
    ("study", "run", "paper", "--out"),
)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        *((words, name) for words in FILES for name in (".", "..", "/", "file/x", "x" * 300)),
        *((words, name) for words in FOLDERS for name in ("file", "file/x", "x" * 300)),
    ],
    ids=lambda part: part[:9] if isinstance(part, str) else f"{part[0]} {part[-1]}",
)
def test_a_place_where_nothing_can_be_written_is_refused(
    dest: Callable[..., Done],
    file: Path,
    places: dict[str, Path],
    words: tuple[str, ...],
    name: str,
):
    Path("file").touch()
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    done = dest(*(word.format(circuit=file, **places) for word in words), name)
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines()[-1].startswith("dest: ")
    assert "Traceback" not in done.err
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        pytest.param("torch", "ml", marks=pytest.mark.soak),
        ("safetensors", "ml"),
        pytest.param("qiskit_machine_learning", "ml", marks=pytest.mark.soak),
        pytest.param("sklearn", "ml", marks=pytest.mark.soak),
        ("vl_convert", "report"),
    ],
)
def test_train_without_an_extra_writes_nothing(tmp_path: Path, module: str, extra: str):
    """In a process of its own: here the libraries have long been imported."""
    program = "from distributed_estimator.cli.main import main; sys.exit(main(['train', 'iris']))"
    done = run_without(module, program, tmp_path)
    assert_refused(
        Done(done.returncode, done.stdout, done.stderr),
        f'run `pip install "distributed-estimator[{extra}]"`',
        tmp_path,
    )
