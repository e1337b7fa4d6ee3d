"""A plan as a picture: the circuit with its cuts, and the graph of fragments and cuts.

The picture is SVG, the same on every machine; nothing but `Drawing.save` touches files.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING

from qiskit.circuit import ControlledGate

from ..checks import given_path, require
from ..errors import InputError, short
from ..records.files import atomic, refused
from ..views import counted
from .channels import SettingBasis
from .fragments import Cut, Segments
from .rewrite import Operation

if TYPE_CHECKING:
    from .plan import CutPlan

# Okabe and Ito's palette, whose colours stay apart under every common colour blindness.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#6b7280")
_INK, _FAINT = "#1f2937", "#c4c8cf"
_WIDTH, _HEIGHT = 1000, 2400
"""Pixels of the circuit: wider ones are folded; beyond both, columns are put together."""
_NAMED_QUBITS, _NAMED_BANDS = 24, 3
"""Larger circuits are drawn without the names of gates."""
_TALL_BOXES, _MOST_BOXES = 24, 30
"""More fragments than these have one line of text each, and a table and a matrix for all."""
_MATRIX, _TABLE, _GROUPS, _LINE = 420, 460, 12, 17
_CUT_COLOURS = {("gate",): _COLOURS[0], ("wire",): _COLOURS[1], ("gate", "wire"): _COLOURS[2]}
_WIDEST = 1540
"""Pixels of a picture with its parts side by side."""
_COLUMN, _LEFT, _PAD, _TOP, _GAP = 34.0, 40, 26, 44, 24
_BOX, _ARC, _LABEL = 190, 50, 130
_HALO = 'paint-order="stroke" stroke="white" stroke-width="3"'
_START = 'text-anchor="start"'


@dataclass(frozen=True)
class Drawing:
    """A picture of a plan, which notebooks show.

    Attributes:
        svg: The picture as SVG, on a white ground.
    """

    svg: str

    def __repr__(self) -> str:
        return f"<Drawing: {len(self.svg)} characters of SVG>"

    def _repr_svg_(self) -> str:
        return self.svg

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the picture; the file appears whole or not at all.

        Args:
            path: Ends in .svg, or in .png, which takes the extra `report`.

        Raises:
            InputError: It has another ending.
            MissingExtraError: It ends in .png, and vl-convert is not installed.
            RecordError: It cannot be written.
        """
        convert = converter(path)
        target = given_path(path)
        with refused("write", target), atomic(target, durable=False) as unfinished:
            unfinished.write_bytes(convert(self.svg))


def converter(path: str | os.PathLike[str]) -> Callable[[str], bytes]:
    """What makes of SVG the file that a path asks for by its ending.

    Raises:
        InputError: It ends in neither .svg nor .png.
        MissingExtraError: It ends in .png, and vl-convert is not installed.
    """
    suffix = given_path(path).suffix.lower()
    if suffix == ".svg":
        return str.encode
    if suffix != ".png":
        raise InputError(f"the picture is `{path}`: give a file that ends in .svg or .png")
    vl_convert = require("vl_convert", "report", "a picture as PNG", "vl-convert-python")
    return lambda svg: bytes(vl_convert.svg_to_png(svg, scale=2))


def summary(plan: CutPlan, basis: SettingBasis = "full") -> str:
    """One line on a plan: qubits, fragments and their widths, cuts by kind, circuits."""
    widths = [fragment.num_qubits for fragment in plan.fragments]
    least, most = min(widths, default=0), max(widths, default=0)
    of = f"{most}" if least == most else f"{least} to {most}"
    circuits = sum(plan.settings_per_fragment(basis))
    return (
        f"{counted(plan.normal.num_qubits, 'qubit')} in {counted(len(widths), 'fragment')} of "
        f"{of}, {_kinds(plan.cuts)} cut, {counted(circuits, 'circuit')} a measurement basis"
    )


def ranges(numbers: Iterable[int]) -> str:
    """Numbers as text, runs of consecutive ones shortened.

    Example:
        >>> ranges([7, 0, 1, 2])
        '0-2, 7'
    """
    places = enumerate(sorted(set(numbers)))
    runs = [[n for _, n in run] for _, run in groupby(places, lambda pair: pair[1] - pair[0])]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def draw(plan: CutPlan, basis: SettingBasis) -> Drawing:
    """The circuit of a plan, and beside it or below, as there is room, its fragments and cuts.

    Rows are the qubits of the normal form, in the colours of their fragments; permutations are not
    drawn. Where there are many fragments, colours repeat and numbers tell them apart. More than 30
    are counted in a table of those alike, and cuts are the squares of a matrix of fragments.
    """
    grid, title = _Grid.of(plan), summary(plan, basis)
    graph_width, graph_height = _graph_size(plan, basis)
    beside = grid.width + graph_width <= _WIDEST
    x, y = (grid.width + _GAP, _TOP) if beside else (_LEFT, grid.height + _GAP)
    width = max(x + graph_width, grid.width, 7 * len(title) + 16) + 16
    height = max(y + graph_height, grid.height) + 16
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" role="img" font-family="sans-serif" '
        f'font-size="11" fill="{_INK}" text-anchor="middle">',
        f'<rect width="{width:g}" height="{height:g}" rx="8" fill="white"/>',
        _text(16, 25, title, f'{_START} font-size="13" font-weight="bold"'),
        *_circuit(plan, grid),
        f'<g transform="translate({x:g} {y:g})">',
        *(_graph if plan.num_fragments <= _MOST_BOXES else _matrix)(plan, basis),
        "</g>",
        "</svg>",
    ]
    return Drawing("\n".join(lines) + "\n")


# The circuit


@dataclass(frozen=True)
class _Grid:
    """Where qubits and columns are in the picture.

    Attributes:
        qubits: Rows of a band.
        columns: The column of each operation.
        band: Columns of a band.
        column: Pixels of a column.
        row: Pixels of a row.
        named: Whether gates have names.
    """

    qubits: int
    columns: tuple[int, ...]
    band: int
    column: float
    row: float
    named: bool

    @staticmethod
    def of(plan: CutPlan) -> _Grid:
        qubits, free = plan.normal.num_qubits, [0] * plan.normal.num_qubits
        columns = []
        for operation in plan.normal.operations:
            first, last = min(operation.qubits), max(operation.qubits) + 1
            columns.append(max(free[first:last]))
            free[first:last] = [columns[-1] + 1] * (last - first)
        total = max(columns, default=0) + 1
        named = qubits <= _NAMED_QUBITS and total <= _NAMED_BANDS * int(_WIDTH / _COLUMN)
        column, row = (_COLUMN, 34.0) if named else (8.0, min(14.0, max(3.0, 900 / max(1, qubits))))
        most = int(_WIDTH / column)
        bands = min(-(-total // most), max(1, int(_HEIGHT / (qubits * row + _GAP))))
        together = -(-total // (most * bands))
        columns = [number // together for number in columns]
        total = -(-total // together)
        band = -(-total // -(-total // most))
        return _Grid(qubits, tuple(columns), band, column, row, named)

    @property
    def num_bands(self) -> int:
        return max(self.columns, default=0) // self.band + 1

    @property
    def width(self) -> float:
        return _LEFT + _PAD + self.band * self.column

    @property
    def height(self) -> float:
        return _TOP + self.num_bands * (self.qubits * self.row + _GAP) - _GAP

    def x(self, column: int) -> float:
        return _LEFT + _PAD + (column % self.band + 0.5) * self.column

    def y(self, qubit: int, column: int) -> float:
        band = column // self.band
        return round(_TOP + band * (self.qubits * self.row + _GAP) + (qubit + 0.5) * self.row, 1)

    def parts(self, start: int | None, end: int | None) -> Iterator[tuple[float, float, int]]:
        """Left and right end and first column, in each band, of what is between two columns.

        It reaches from one's middle to the other's; None: from the beginning, or to the end.
        """
        first, last = start or 0, self.num_bands * self.band - 1 if end is None else end
        for band in range(first // self.band, last // self.band + 1):
            opens = start is not None and band == first // self.band
            closes = end is not None and band == last // self.band
            left, right = self.x(first) if opens else _LEFT, self.x(last) if closes else self.width
            yield left, right, band * self.band


_Stretch = tuple[int, int | None, int | None]
"""A qubit from one column to another; None: from the beginning, or to the end."""
_Placed = tuple[int, Operation]
"""A column, and what is there."""


def _stretches(plan: CutPlan, wires: Segments, grid: _Grid) -> Iterator[tuple[int, _Stretch]]:
    """The stretches of all qubits, each with its segment."""
    here: list[tuple[int, int | None]] = [(qubit, None) for qubit in range(grid.qubits)]
    for number, operation in enumerate(plan.normal.operations):
        for qubit, segment in zip(operation.qubits, wires.after[number], strict=True):
            if here[qubit][0] != segment:
                yield here[qubit][0], (qubit, here[qubit][1], grid.columns[number])
                here[qubit] = segment, grid.columns[number]
    yield from ((segment, (qubit, start, None)) for qubit, (segment, start) in enumerate(here))


def _circuit(plan: CutPlan, grid: _Grid) -> Iterator[str]:
    """Names of qubits, fragments one after the other, and cuts on top."""
    wires = Segments(plan.normal, plan.cut_operations)
    final = [wires.current[plan.normal.outputs[qubit]] for qubit in plan.observed]
    owner = wires.fragments(plan.cut_operations, final)
    stretches: dict[int, list[_Stretch]] = defaultdict(list)
    for segment, stretch in _stretches(plan, wires, grid):
        stretches[owner.get(segment, -1)].append(stretch)
    gates: dict[int, list[_Placed]] = defaultdict(list)
    cuts: list[_Placed] = []
    for number, operation in enumerate(plan.normal.operations):
        place = grid.columns[number], operation
        if number in plan.cut_operations:
            cuts.append(place)
        elif operation.kind != "cut_wire":
            gates[owner.get(wires.after[number][-1], -1)].append(place)
    size = 11 if grid.named else 8
    for band in range(grid.num_bands):
        for qubit in range(0, grid.qubits, max(1, round(10 / grid.row))):
            y = grid.y(qubit, band * grid.band) + 3
            yield _text(_LEFT - 6, y, f"q{qubit}", f'text-anchor="end" font-size="{size}"')
    for fragment in sorted(stretches):
        yield from _piece(plan, grid, fragment, stretches[fragment], gates[fragment])
    for number, (column, operation) in enumerate(cuts):
        yield from _mark(grid, number, plan.cuts[number], operation, column)


def _piece(
    plan: CutPlan, grid: _Grid, fragment: int, stretches: list[_Stretch], gates: list[_Placed]
) -> Iterator[str]:
    """A fragment in its colour, named where it begins in a band; -1: what no fragment needs."""
    tint, wire = "", ""
    names: dict[object, tuple[float, float]] = {}
    for qubit, start, end in stretches:
        for left, right, column in grid.parts(start, end):
            y = grid.y(qubit, column)
            tint += f"M{left:g} {y - grid.row / 2:.5g}H{right:g}v{grid.row:.5g}H{left:g}Z"
            wire += f"M{left:g} {y:.5g}H{right:g}"
            names[column] = min(names.get(column, (left, y)), (left, y))
            if grid.named and left > _LEFT:
                names[left, y] = left, y
    if fragment < 0:
        yield f'<path d="{wire}" stroke="{_FAINT}"/>'
        return
    colour = _colour(fragment)
    yield f'<g data-fragment="{fragment}">{_title(_fragment_name(plan, fragment))}'
    yield f'<path d="{tint}" fill="{colour}" fill-opacity="0.16"/>'
    yield f'<path d="{wire}" stroke="{colour}"/>'
    yield from (_boxes if grid.named else _lines)(grid, gates, colour)
    offset = 8.5 - grid.row / 2 if grid.named else 3
    sparse = grid.named or plan.num_fragments <= _TALL_BOXES
    room = grid.qubits * grid.row / plan.num_fragments  # of a name
    if fragment % next(step for step in (1, 2, 5, 10, 20, 50, 10**9) if step * room >= 8):
        names.clear()
    for left, y in sorted(place for place in set(names.values()) if sparse or place[0] == _LEFT):
        style = f'{_START} font-size="{min(11.0, max(8, grid.row)):.3g}" font-weight="bold" {_HALO}'
        yield _text(left + (10 if left > _LEFT else 3), y + offset, f"F{fragment}", style)
    yield "</g>"


def _lines(grid: _Grid, gates: Iterable[_Placed], colour: str) -> Iterator[str]:
    """Gates as thin lines and dots, measurements and resets as ticks; each place once."""
    lines, dots, ticks = dict[str, None](), dict[str, None](), dict[str, None]()
    for column, operation in gates:
        x, ys = grid.x(column), [grid.y(qubit, column) for qubit in operation.qubits]
        if operation.kind in ("measure", "reset"):
            ticks[f"M{x:g} {ys[0] - grid.row / 2:.5g}v{grid.row:.5g}"] = None
            continue
        lines[f"M{x:g} {min(ys):.5g}V{max(ys):.5g}"] = None
        dots |= dict.fromkeys(f"M{x:g} {y:.5g}h0" for y in ys)
    for parts, stroke, width in (
        (lines, colour, 1.2),
        (dots, colour, min(4.0, grid.row / 2)),
        (ticks, _INK, 2.0),
    ):
        style = f'stroke="{stroke}" stroke-width="{width:g}" stroke-linecap="round"'
        yield f'<path d="{"".join(parts)}" {style}/>' if parts else ""


def _boxes(grid: _Grid, gates: Iterable[_Placed], colour: str, dashes: str = "") -> Iterator[str]:
    """Gates as boxes with names, on the last qubit, and dots on the others."""
    for column, operation in gates:
        x, ys = grid.x(column), [grid.y(qubit, column) for qubit in operation.qubits]
        if len(ys) > 1:
            line = f'd="M{x:g} {min(ys):g}V{max(ys):g}" stroke="{colour}" stroke-width="2"'
            yield f"<path {line}{dashes}/>"
        yield from (f'<circle cx="{x:g}" cy="{y:g}" r="4" fill="{colour}"/>' for y in ys[:-1])
        yield _box(x - 14, ys[-1] - 9, 28, 18, f'stroke="{colour}" stroke-width="1.5"')
        yield _text(x, ys[-1] + 3.5, _gate_name(operation), 'font-size="10"')


def _mark(grid: _Grid, number: int, cut: Cut, operation: Operation, column: int) -> Iterator[str]:
    """A cut: its number, on a broken line between the qubits of a gate or move, or on the wire."""
    x, ys = grid.x(column), [grid.y(qubit, column) for qubit in operation.qubits]
    top, bottom, dashes = min(ys), max(ys), ' stroke-dasharray="3 3"'
    on, between = (
        " and ".join(map(str, operation.qubits)),
        " and ".join(f"F{f}" for f, _ in cut.ends),
    )
    yield f'<g data-cut="{number}">' + _title(
        f"cut {number}: {cut.name} on {on}, instruction {cut.position}, between {between}, "
        f"sampling overhead {cut.sampling_overhead:.4g}"
    )
    # Numbers of long lines side by side are at unlike heights.
    y = top + (bottom - top) * ((number % 3 + 1) / 4 if bottom - top > 1.5 * grid.row else 0.5)
    if len(ys) == 1:
        top, bottom, dashes = y - grid.row / 2, y + grid.row / 2, ""
    if len(ys) > 1 and grid.named:
        yield from _boxes(grid, [(column, operation)], _INK, dashes)
        y += 3 if ys[-1] < ys[0] else -3
    else:
        yield f'<path d="M{x:g} {top:g}V{bottom:g}" stroke="{_INK}" stroke-width="2"{dashes}/>'
    radius = 6.5 if grid.named else min(5.5, 0.75 * grid.row)
    yield f'<circle cx="{x:g}" cy="{y:g}" r="{radius:.3g}" fill="{_INK}"/>'
    if radius < 4:
        yield "</g>"
        return
    size = min(radius + 2, 2.8 * radius / len(str(number)))
    style = f'font-size="{size:.3g}" font-weight="bold" fill="white"'
    yield _text(x, y + 3, str(number), style) + "</g>"


# The graph of fragments and cuts


def _pitch(plan: CutPlan) -> int:
    """Pixels from one fragment to the next."""
    return 60 if plan.num_fragments <= _TALL_BOXES else 22


def _graph_size(plan: CutPlan, basis: SettingBasis) -> tuple[float, float]:
    """Pixels of the graph of fragments and cuts."""
    if plan.num_fragments > _MOST_BOXES:
        rows = min(_GROUPS + 1, len(_alike(plan, basis)))
        return _TABLE, _LINE * (rows + 4) + _cell(plan) * plan.num_fragments
    spans = [abs(cut.ends[0][0] - cut.ends[1][0]) for cut in plan.cuts]
    width = _BOX + (_depth(plan, max(spans)) + _LABEL if spans else 0)
    return width, _pitch(plan) * plan.num_fragments


def _depth(plan: CutPlan, span: int) -> float:
    """How far to the right an arc reaches between fragments that are so many apart."""
    return 24 + min(_ARC, 500 / plan.num_fragments) * span


def _graph(plan: CutPlan, basis: SettingBasis) -> Iterator[str]:
    """Fragments as boxes one below the other, and the cuts between two of them as an arc."""
    pairs = _pairs(plan)
    for first, second in sorted(pairs, key=lambda pair: (pair[0] - pair[1], pair)):
        yield from _arc(plan, first, second, pairs[first, second])
    pitch, circuits = _pitch(plan), plan.settings_per_fragment(basis)
    for number, fragment in enumerate(plan.fragments):
        colour, top = _colour(number), number * pitch
        name = f"F{number} · {counted(fragment.num_qubits, 'qubit')}"
        lines = [name, f"qubits {ranges(fragment.qubits)}", counted(circuits[number], "circuit")]
        if pitch < 60:
            lines = [f"{lines[0]} · {lines[2]}"]
        height, size = pitch - (8 if len(lines) > 1 else 3), min(11.0, 0.6 * pitch)
        yield f'<g data-box="{number}">{_title(_fragment_name(plan, number))}'
        yield _box(0, top, _BOX, height, f'stroke="{colour}" stroke-width="2"')
        yield f'<rect x="0" y="{top}" width="8" height="{height}" rx="3" fill="{colour}"/>'
        for line, text in enumerate(lines):
            weight = "normal" if line else "bold"
            style = f'{_START} font-size="{size:g}" font-weight="{weight}"'
            y = top + (15 if len(lines) > 1 else 0.4 * size + height / 2) + 14 * line
            yield _text(16, y, _short(text, 32), style)
        yield "</g>"


def _pairs(plan: CutPlan) -> dict[tuple[int, int], list[int]]:
    """Numbers of the cuts between each two fragments, the smaller one first."""
    pairs: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, cut in enumerate(plan.cuts):
        first, second = sorted(fragment for fragment, _ in cut.ends)
        pairs[first, second].append(number)
    return pairs


def _alike(plan: CutPlan, basis: SettingBasis) -> list[tuple[tuple[int, int, int], list[int]]]:
    """Fragments of as many circuits, qubits and ends of cuts, those of most circuits first."""
    groups: dict[tuple[int, int, int], list[int]] = defaultdict(list)
    for number, circuits in enumerate(plan.settings_per_fragment(basis)):
        fragment = plan.fragments[number]
        groups[circuits, fragment.num_qubits, len(fragment.slots)].append(number)
    return sorted(groups.items(), reverse=True)


def _cell(plan: CutPlan) -> float:
    """Pixels of a fragment in the matrix."""
    return max(1.5, _MATRIX / plan.num_fragments)


def _matrix(plan: CutPlan, basis: SettingBasis) -> Iterator[str]:
    """How many fragments are alike, and squares where cuts join the row's and the column's."""
    columns, edges = ("fragments", "qubits", "cut ends", "circuits each"), (60, 110, 170, 250)
    groups = _alike(plan, basis)
    rows: list[tuple[object, ...]] = [
        (len(numbers), qubits, ends, short(circuits), f"F{_short(ranges(numbers), 30)}")
        for (circuits, qubits, ends), numbers in groups[:_GROUPS]
    ]
    if len(groups) > _GROUPS:
        others = sum(len(numbers) for _, numbers in groups[_GROUPS:])
        rows.append((others, "", "", "fewer", f"{len(groups) - _GROUPS} kinds more"))
    for line, row in enumerate([columns, *rows]):
        weight = "normal" if line else "bold"
        style = f'text-anchor="end" font-weight="{weight}"'
        for x, text in zip(edges, row, strict=False):
            yield _text(x, 12 + _LINE * line, str(text), style)
        yield from (_text(266, 12 + _LINE * line, str(text), _START) for text in row[4:])
    cell, top, left = _cell(plan), _LINE * (len(rows) + 4), 30
    x, pairs = left, _pairs(plan)
    kinds = {pair: tuple(sorted({plan.cuts[n].kind for n in own})) for pair, own in pairs.items()}
    for kind in sorted(set(kinds.values())):
        yield f'<rect x="{x}" y="{top - 39}" width="10" height="10" fill="{_CUT_COLOURS[kind]}"/>'
        yield _text(x + 15, top - 30, f"{' and '.join(kind)} cuts", _START)
        x += 75 if len(kind) == 1 else 130
    yield _text(x, top - 30, "between the fragments of a row and a column", _START)
    side = cell * plan.num_fragments
    yield _box(left, top, side, side, f'stroke="{_FAINT}"')
    step = next(each for each in (5, 10, 20, 50, 100, 200, 500, 10**9) if each * cell >= 30)
    for number in range(0, plan.num_fragments, step):
        middle = (number + 0.5) * cell
        yield _text(left - 4, top + middle + 3, f"F{number}", 'text-anchor="end" font-size="9"')
        yield _text(left + middle, top - 5, f"F{number}", 'font-size="9"')
    for number in range(plan.num_fragments):
        square = _square(left, top, cell, number, number)
        yield f'<g data-box="{number}">{_title(_fragment_name(plan, number))}'
        yield f'<path d="{square}" fill="{_FAINT}"/></g>'
    for (first, second), numbers in sorted(pairs.items()):
        squares = {_square(left, top, cell, *each) for each in ((first, second), (second, first))}
        what = f"F{first} and F{second}: {_kinds(plan.cuts[n] for n in numbers)}"
        yield f'<g data-edge="{first} {second}">{_title(f"{what}, cuts {ranges(numbers)}")}'
        yield f'<path d="{"".join(sorted(squares))}" fill="{_CUT_COLOURS[kinds[first, second]]}"/>'
        yield "</g>"


def _square(left: float, top: float, cell: float, row: int, column: int) -> str:
    return f"M{left + column * cell:.5g} {top + row * cell:.5g}h{cell:.3g}v{cell:.3g}h-{cell:.3g}Z"


def _arc(plan: CutPlan, first: int, second: int, numbers: Sequence[int]) -> Iterator[str]:
    """The cuts between two fragments, or both of whose ends are on one."""
    cuts, pitch = [plan.cuts[number] for number in numbers], _pitch(plan)
    depth, shift = _depth(plan, second - first), pitch / 6 * (-1 if first == second else 1)
    top, bottom = ((each + 0.5) * pitch - 4 for each in (first, second))
    top, bottom, reach = top + shift, bottom - shift, _BOX + depth * 4 / 3
    dashes = "6 3" if all(cut.kind == "wire" for cut in cuts) else "none"
    curve = f"M{_BOX} {top:g}C{reach:g} {top:g} {reach:g} {bottom:g} {_BOX} {bottom:g}"
    kinds = _kinds(cuts) if len(cuts) > 1 else cuts[0].kind
    label = f"cut{'s' * (len(cuts) > 1)} {_short(ranges(numbers), 12)}: {kinds}"
    yield f'<g data-edge="{first} {second}">{_title(f"{kinds}: cuts {ranges(numbers)}")}'
    yield f'<path d="{curve}" stroke="{_INK}" fill="none" stroke-dasharray="{dashes}"/>'
    size = f'font-size="{min(11, 0.45 * pitch):g}"'
    yield _text(_BOX + depth + 5, (top + bottom) / 2 + 3.5, label, f"{_START} {size} {_HALO}")
    yield "</g>"


# Text and shapes


def _colour(fragment: int) -> str:
    return _COLOURS[fragment % len(_COLOURS)]


def _fragment_name(plan: CutPlan, fragment: int) -> str:
    return f"F{fragment}: qubits {ranges(plan.fragments[fragment].qubits)}"


def _gate_name(operation: Operation) -> str:
    gate = operation.instruction
    name = gate.base_gate.name if isinstance(gate, ControlledGate) else gate.name
    return _short({"measure": "M", "reset": "|0⟩"}.get(name, name), 5)


def _kinds(cuts: Iterable[Cut]) -> str:
    """How many cuts of either kind: 2 gates and 1 wire."""
    counts = Counter(cut.kind for cut in cuts)
    return " and ".join(counted(counts[kind], kind) for kind in sorted(counts)) or "nothing"


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _title(text: str) -> str:
    """What a browser shows under the pointer."""
    return f"<title>{_plain(text)}</title>"


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text x="{x:g}" y="{y:.5g}" {style}>{_plain(text)}</text>'


def _plain(text: str) -> str:
    """Text without what SVG takes for tags, or cannot hold."""
    return escape("".join(letter if letter.isprintable() else "�" for letter in text), quote=False)


def _box(x: float, y: float, width: float, height: float, style: str) -> str:
    place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
    return f'<rect {place} rx="4" fill="white" {style}/>'
