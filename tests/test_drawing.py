"""Pictures of plans: what is in them, and where they go."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from helpers import Done, refused
from qiskit import QuantumCircuit, qasm2
from qiskit.circuit.library import UnitaryGate, real_amplitudes
from qiskit_addon_cutting.instructions import Move

from distributed_estimator import CutAt
from distributed_estimator.cutting import CutPlan, CutWire
from distributed_estimator.errors import InputError, MissingExtraError, RecordError

PNG = b"\x89PNG\r\n\x1a\n"
SVG = "{http://www.w3.org/2000/svg}"


def chain(width: int) -> QuantumCircuit:
    circuit = QuantumCircuit(width)
    for qubit in range(width - 1):
        circuit.ry(0.3, qubit)
        circuit.cx(qubit, qubit + 1)
    return circuit


def mixed() -> CutPlan:
    """A cut move, a cut gate with both ends on one fragment, a measurement and a reset."""
    circuit = QuantumCircuit(6, 1)
    circuit.cx(0, 1)
    circuit.reset(1)
    circuit.ry(0.3, 1)
    circuit.rzz(0.2, 0, 1)
    circuit.measure(1, 0)
    circuit.append(Move(), [1, 2])
    circuit.append(Move(), [0, 1])
    circuit.ccx(2, 3, 4)
    circuit.rzz(0.7, 2, 4)
    plan = CutPlan.build(circuit, CutAt([5, 8]))
    return plan.for_observables([1, 2, 3])


def star() -> CutPlan:
    """Three wire cuts, and two cut gates between fragments that wires join, too."""
    circuit = QuantumCircuit(7)
    for qubit in range(1, 7):
        circuit.cx(0, qubit)
        if qubit % 2 == 0:
            circuit.append(CutWire(), [0])
    circuit.rzz(0.1, 1, 3)
    circuit.rzz(0.1, 3, 5)
    return CutPlan.build(circuit, CutAt([2, 5, 8, 9, 10]))


def large() -> CutPlan:
    return CutPlan.build(real_amplitudes(100, reps=3), [q // 10 for q in range(100)])


def long() -> CutPlan:
    """More columns than fit, cut at its end."""
    circuit = QuantumCircuit(3)
    for _ in range(1300):
        circuit.cx(0, 1)
        circuit.ry(0.1, 0)
    circuit.measure_all()
    circuit.cx(1, 2)
    return CutPlan.build(circuit, "AAB")


def crowded() -> CutPlan:
    """More fragments than have boxes of several lines."""
    return CutPlan.build(chain(30), range(30))


def many() -> CutPlan:
    """More fragments than have boxes: a chain of gate cuts, and a wire cut."""
    circuit = chain(120)
    circuit.append(CutWire(), [0])
    circuit.rzz(0.1, 0, 7)
    circuit.rzz(0.1, 50, 119)
    cuts = [i for i, item in enumerate(circuit.data) if item.operation.name != "ry"]
    return CutPlan.build(circuit, CutAt(cuts[2::3] + cuts[-2:]))


def values(root: ElementTree.Element, name: str) -> list[str]:
    """Values of an attribute, in order."""
    return [value for each in root.iter() if (value := each.get(name)) is not None]


@pytest.mark.parametrize("make", [mixed, star, large, long, crowded, many])
def test_a_picture_has_every_fragment_every_cut_and_what_they_join(make: Callable[[], CutPlan]):
    plan = make()
    root = ElementTree.fromstring(plan.draw().svg)
    fragments = [str(number) for number in range(plan.num_fragments)]
    assert root.tag == f"{SVG}svg"
    assert values(root, "data-fragment") == fragments
    assert values(root, "data-box") == fragments
    assert values(root, "data-cut") == [str(number) for number in range(plan.num_cuts)]
    pairs = {tuple(sorted(fragment for fragment, _ in cut.ends)) for cut in plan.cuts}
    assert set(values(root, "data-edge")) == {f"{one} {other}" for one, other in pairs}
    # Everything is where it can be seen.
    width, height = float(root.get("width") or 0), float(root.get("height") or 0)
    for mark in root.iter(f"{SVG}circle"):
        assert 0 < float(mark.get("cx") or 0) < width
        assert 0 < float(mark.get("cy") or 0) < height


def test_a_picture_says_of_what_kind_cuts_are_and_how_many_circuits_run():
    plan = star()
    text = "\n".join(ElementTree.fromstring(plan.draw("minimal").svg).itertext())
    kinds = [cut.kind for cut in plan.cuts]
    assert (kinds.count("gate"), kinds.count("wire")) == (2, 3)
    assert "1 gate and 1 wire" in text
    for circuits in plan.settings_per_fragment("minimal"):
        assert f"{circuits} circuit" in text


def test_many_fragments_are_counted_by_kind_and_their_cuts_are_a_matrix():
    plan = many()
    assert plan.num_fragments > 30
    root = ElementTree.fromstring(plan.draw("minimal").svg)
    words = [text.text for text in root.iter(f"{SVG}text")]
    kinds = Counter(
        (fragment.num_qubits, len(fragment.slots), circuits)
        for fragment, circuits in zip(
            plan.fragments, plan.settings_per_fragment("minimal"), strict=True
        )
    )
    assert 1 < len(kinds) < 12
    start = words.index("circuits each") + 1
    rows = [tuple(map(int, words[at : at + 4])) for at in range(start, start + 5 * len(kinds), 5)]
    assert {row[1:]: row[0] for row in rows} == kinds
    edges = {edge.get("data-edge"): edge for edge in root.iter(f"{SVG}g") if edge.get("data-edge")}
    boxes = {box.get("data-box"): box for box in root.iter(f"{SVG}g") if box.get("data-box")}

    def corner(group: ElementTree.Element, number: int) -> list[str]:
        path = group.find(f"{SVG}path")
        assert path is not None
        return path.get("d", "").split("M")[1:][number].split("h")[0].split()

    # A square stands in the row of one fragment and the column of the other, on both sides.
    for edge, group in edges.items():
        one, other = (corner(boxes[number], 0) for number in str(edge).split())
        assert {tuple(corner(group, side)) for side in (0, -1)} == {
            (one[0], other[1]),
            (other[0], one[1]),
        }
    assert (
        len({path.get("fill") for group in edges.values() for path in group if path.get("d")}) > 1
    )


def test_gates_have_names_in_small_circuits_and_none_in_large_ones():
    names = {text.text for text in ElementTree.fromstring(mixed().draw().svg).iter(f"{SVG}text")}
    assert {"M", "|0⟩", "rzz", "move"} <= names
    names = {text.text for text in ElementTree.fromstring(large().draw().svg).iter(f"{SVG}text")}
    assert "ry" not in names


def test_columns_of_a_long_circuit_are_put_together():
    root = ElementTree.fromstring(long().draw().svg)
    assert float(root.get("width") or 0) < 1500
    assert float(root.get("height") or 0) < 2500


def test_names_of_gates_are_text():
    circuit = QuantumCircuit(2)
    gate = UnitaryGate(np.diag([1, 1, 1, -1]))
    gate.name = "<&\x00\x1b"
    circuit.append(gate, [0, 1])
    for label in ("AA", "AB"):
        root = ElementTree.fromstring(CutPlan.build(circuit, label).draw().svg)
        assert any(text.text == "<&��" for text in root.iter(f"{SVG}text"))


@pytest.mark.parametrize("circuit", [QuantumCircuit(0), QuantumCircuit(3)])
def test_circuits_without_gates_are_drawn(circuit: QuantumCircuit):
    plan = CutPlan.build(circuit, None)
    for each in (plan, plan.for_observables([])):
        ElementTree.fromstring(each.draw().svg)


def test_a_plan_shows_itself_in_one_line_and_in_notebooks():
    plan = star()
    assert repr(plan) == (
        f"<CutPlan: 7 qubits in {plan.num_fragments} fragments of 1 to 3, 2 gates and 3 wires "
        f"cut, {sum(plan.settings_per_fragment())} circuits a measurement basis>"
    )
    drawing = plan.draw()
    assert plan._repr_html_() == drawing._repr_svg_() == drawing.svg
    assert len(repr(drawing)) < 80


def test_the_same_plan_gives_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    for name in ("one.svg", "two.SVG", "one.png"):
        mixed().draw().save(tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.SVG").read_bytes()
    assert (tmp_path / "one.png").read_bytes().startswith(PNG)


def test_other_files_are_refused(tmp_path: Path):
    drawing = star().draw()
    for name in ("plan.pdf", "plan", ".svg"):
        with pytest.raises(InputError, match=r"give a file that ends in \.svg or \.png"):
            drawing.save(tmp_path / name)
    with pytest.raises(RecordError, match=r"plan\.svg"):
        drawing.save(tmp_path / "nowhere" / "plan.svg")
    assert not list(tmp_path.iterdir())


def test_without_vl_convert_svg_is_written_and_png_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    drawing = star().draw()
    drawing.save(tmp_path / "plan.svg")
    with pytest.raises(MissingExtraError, match=r'pip install "distributed-estimator\[report\]"'):
        drawing.save(tmp_path / "plan.png")
    assert [path.name for path in tmp_path.iterdir()] == ["plan.svg"]


def test_the_command_writes_a_picture(dest: Callable[..., Done], tmp_path: Path):
    file = tmp_path / "chain.qasm"
    file.write_text(qasm2.dumps(chain(4)), "utf-8")
    query = (file, "--label", "AABB", "--basis", "minimal", "--shots", 10)
    done = dest("plan", *query, "--no-draw", "--figure", tmp_path / "plan.svg")
    assert done.out.splitlines()[-1] == f"figure {tmp_path / 'plan.svg'}"
    svg = (tmp_path / "plan.svg").read_text("utf-8")
    assert svg == CutPlan.build(chain(4), "AABB").draw("minimal").svg
    document = dest("plan", *query, "--json", "--figure", tmp_path / "plan.png").document
    assert document["figure"] == str(tmp_path / "plan.png")
    assert (tmp_path / "plan.png").read_bytes().startswith(PNG)
    message = refused(dest("plan", *query, "--figure", tmp_path / "plan.pdf"))
    assert "give a file that ends in .svg or .png" in message
