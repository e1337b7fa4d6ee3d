"""A plan as a picture: the circuit with its cuts, and the graph of fragments and cuts."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple
from xml.sax.saxutils import escape, quoteattr

from qiskit.circuit import ControlledGate

from ..checks import given_path, require
from ..errors import InputError, short
from ..records import atomic
from .channels import SettingBasis
from .fragments import Cut, Segments
from .rewrite import Operation

if TYPE_CHECKING:
    from .plan import CutPlan

Convert = Callable[..., bytes]

# Okabe and Ito's palette, whose colours stay apart under every common colour blindness.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#6b7280")
_INK, _FAINT = "#1f2937", "#c4c8cf"
_WIDTH, _HEIGHT = 1000, 2400
"""Pixels of the circuit: beyond the first it is folded, beyond both columns are put together."""
_NAMED_QUBITS, _NAMED_BANDS = 24, 3
"""Larger circuits are drawn without the names of gates."""
_TALL_BOXES = 24
"""More fragments than these have one line of text each."""
_COLUMN = 34.0
_LEFT, _PAD, _TOP, _GAP = 40, 26, 44, 24
_BOX, _ARC, _LABEL = 190, 50, 130
_HALO = {"paint_order": "stroke", "stroke": "white", "stroke_width": 3}


@dataclass(frozen=True)
class Drawing:
    """A picture as SVG, which notebooks show.

    Attributes:
        svg: The document.
    """

    svg: str

    def __repr__(self) -> str:
        return f"<Drawing: {len(self.svg)} characters of SVG>"

    def _repr_svg_(self) -> str:
        return self.svg

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the picture; the file appears whole or not at all.

        Args:
            path: Ends in .svg or .png, which takes the extra `report`.

        Raises:
            InputError: It has another ending.
            MissingExtraError: It ends in .png, and vl-convert is not installed.
            OSError: The operating system refused to write.
        """
        convert = check_picture(path)
        picture = self.svg.encode() if convert is None else convert(self.svg, scale=2)
        with atomic(given_path(path), durable=False) as unfinished:
            unfinished.write_bytes(picture)


def check_picture(path: str | os.PathLike[str]) -> Convert | None:
    """What turns SVG into the picture that a path asks for; None: nothing.

    Raises:
        InputError: It ends in neither .svg nor .png.
        MissingExtraError: It ends in .png, and vl-convert is not installed.
    """
    suffix = given_path(path).suffix.lower()
    if suffix == ".png":
        module = require("vl_convert", "report", "a picture as PNG", "vl-convert-python")
        convert: Convert = module.svg_to_png
        return convert
    if suffix != ".svg":
        raise InputError(f"the picture is `{path}`: give a file that ends in .svg or .png")
    return None


def summary(plan: CutPlan, basis: SettingBasis = "full") -> str:
    """One line on a plan: qubits, fragments and their widths, cuts by kind, circuits."""
    widths = [fragment.num_qubits for fragment in plan.fragments]
    least, most = min(widths, default=0), max(widths, default=0)
    of = f"{most}" if least == most else f"{least} to {most}"
    return (
        f"{_counted(plan.normal.num_qubits, 'qubit')} in {_counted(len(widths), 'fragment')} of "
        f"{of}, {_kinds(plan.cuts)} cut, "
        f"{_counted(sum(plan.settings_per_fragment(basis)), 'circuit')} a measurement basis"
    )


def ranges(numbers: Iterable[int]) -> str:
    """Numbers as text, runs of consecutive ones shortened: 0-3, 7."""
    places = enumerate(sorted(set(numbers)))
    runs = [[n for _, n in run] for _, run in groupby(places, lambda pair: pair[1] - pair[0])]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def draw(plan: CutPlan, basis: SettingBasis) -> Drawing:
    """The circuit, folded where it is long, and beside or below it the fragments and cuts.

    Rows are the qubits of the normal form, each fragment's stretches of them in its colour; cuts
    have numbers. A circuit of many qubits or gates has no names of gates, and columns of a
    very long one are put together.
    """
    grid = _Grid.of(plan)
    circuit, graph = list(_circuit(plan, grid)), list(_graph(plan, basis))
    spans = [abs(a - b) for (a, _), (b, _) in (cut.ends for cut in plan.cuts)]
    graph_width = _BOX + (_arc_depth(plan, max(spans)) + _LABEL if spans else 0)
    graph_height = _pitch(plan) * plan.num_fragments
    beside = grid.width + graph_width <= 1300
    x, y = (grid.width + _GAP, _TOP) if beside else (_LEFT, grid.height + _GAP)
    title = summary(plan, basis)
    width = max(x + graph_width + 16, grid.width + 16, 7 * len(title) + 32)
    height = max(y + graph_height, grid.height) + 16
    body = [
        _tag("rect", width=width, height=height, rx=8, fill="white"),
        _text(16, 25, title, font_size=13, font_weight="bold", text_anchor="start"),
        *circuit,
        _tag("g", graph, transform=f"translate({x:g} {y:g})"),
    ]
    return Drawing(
        _tag(
            *("svg", body),
            **{"xmlns": "http://www.w3.org/2000/svg", "viewBox": f"0 0 {width:g} {height:g}"},
            **{"width": width, "height": height, "role": "img", "font_family": "sans-serif"},
            **{"font_size": 11, "fill": _INK, "text_anchor": "middle"},
        )
        + "\n"
    )


# The circuit


@dataclass(frozen=True)
class _Grid:
    """Where a qubit and a column are in the picture.

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
        band = -(-total // (together * bands))
        return _Grid(qubits, tuple(c // together for c in columns), band, column, row, named)

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

    def y(self, qubit: float, column: int) -> float:
        band = column // self.band
        return _TOP + band * (self.qubits * self.row + _GAP) + (qubit + 0.5) * self.row

    def parts(self, start: int | None, end: int | None) -> Iterator[tuple[float, float, int]]:
        """Left and right end, and a column, of what reaches from one column's middle to another's,
        in each band; None: from the beginning, or to the end."""
        first, last = start or 0, (self.num_bands * self.band - 1 if end is None else end)
        for number in range(first // self.band, last // self.band + 1):
            opens = start is not None and number == first // self.band
            closes = end is not None and number == last // self.band
            left = self.x(first) if opens else float(_LEFT)
            right = self.x(last) if closes else self.width
            yield left, right, number * self.band


class _Stretch(NamedTuple):
    """A qubit from one column to another; None: from the beginning, or to the end."""

    qubit: int
    start: int | None
    end: int | None


def _stretches(plan: CutPlan, wires: Segments, grid: _Grid) -> dict[int, list[_Stretch]]:
    """The stretches of qubits that are on each segment."""
    found: dict[int, list[_Stretch]] = defaultdict(list)
    here: list[tuple[int, int | None]] = [(q, None) for q in range(grid.qubits)]
    for number, operation in enumerate(plan.normal.operations):
        for qubit, segment in zip(operation.qubits, wires.after[number], strict=True):
            if here[qubit][0] != segment:
                old, start = here[qubit]
                found[old].append(_Stretch(qubit, start, grid.columns[number]))
                here[qubit] = segment, grid.columns[number]
    for qubit, (segment, start) in enumerate(here):
        found[segment].append(_Stretch(qubit, start, None))
    return found


def _circuit(plan: CutPlan, grid: _Grid) -> Iterator[str]:
    wires = Segments(plan.normal, plan.cut_operations)
    final = [wires.current[plan.normal.outputs[q]] for q in plan.observed]
    owner = wires.fragments(plan.cut_operations, final)
    stretches: dict[int | None, list[_Stretch]] = defaultdict(list)
    for segment, own in _stretches(plan, wires, grid).items():
        stretches[owner.get(segment)] += own
    gates: dict[int | None, list[tuple[int, Operation]]] = defaultdict(list)
    cuts = iter(enumerate(plan.cuts))
    marks: list[str] = []
    for number, operation in enumerate(plan.normal.operations):
        column = grid.columns[number]
        if number in plan.cut_operations:
            marks.append(_mark(grid, *next(cuts), operation, column))
        elif operation.kind != "cut_wire":
            gates[owner.get(wires.after[number][-1])].append((column, operation))
    yield from _labels(grid)
    for fragment in sorted(stretches, key=lambda number: -1 if number is None else number):
        yield _piece(plan, grid, fragment, stretches[fragment], gates[fragment])
    yield from marks


def _labels(grid: _Grid) -> Iterator[str]:
    step = max(1, round(10 / grid.row))
    for band in range(grid.num_bands):
        for qubit in range(0, grid.qubits, step):
            y = grid.y(qubit, band * grid.band) + 3
            size = 11 if grid.named else 8
            yield _text(_LEFT - 6, y, f"q{qubit}", text_anchor="end", font_size=size)


def _piece(
    plan: CutPlan,
    grid: _Grid,
    fragment: int | None,
    stretches: Sequence[_Stretch],
    gates: Sequence[tuple[int, Operation]],
) -> str:
    """A fragment, or what no fragment needs, in its colour."""
    tint, wire, named = [], [], {}
    for qubit, start, end in stretches:
        for left, right, column in grid.parts(start, end):
            y, half = grid.y(qubit, column), grid.row / 2
            tint.append(f"M{left:g} {y - half:.4g}H{right:g}v{grid.row:.4g}H{left:g}Z")
            wire.append(f"M{left:g} {y:.4g}H{right:g}")
            here = named.get(column, (left, y))
            named[column] = min(here, (left, y))
    if fragment is None:
        return _tag("g", [_tag("path", d="".join(wire))], stroke=_FAINT, data_fragment="none")
    colour = _COLOURS[fragment % len(_COLOURS)]
    body = [
        _tag("title", escape(_named(plan, fragment))),
        _tag("path", d="".join(tint), fill=colour, fill_opacity=0.16),
        _tag("path", d="".join(wire), stroke=colour),
        *(_boxes if grid.named else _lines)(grid, gates, colour),
    ]
    size = 10 if grid.named else 9
    for left, y in named.values():
        offset = 10 - grid.row / 2 if grid.named else 3
        body.append(
            _text(
                left + 3,
                y + offset,
                f"F{fragment}",
                font_size=size,
                font_weight="bold",
                text_anchor="start",
                **_HALO,
            )
        )
    return _tag("g", body, data_fragment=fragment)


def _lines(grid: _Grid, gates: Iterable[tuple[int, Operation]], colour: str) -> Iterator[str]:
    """Gates as thin lines and dots, measurements and resets as ticks; each place once."""
    lines, dots, ticks = [], [], []
    for column, operation in gates:
        x, ys = grid.x(column), [grid.y(qubit, column) for qubit in operation.qubits]
        if operation.kind in ("measure", "reset"):
            ticks += [f"M{x:g} {y - grid.row / 2:.4g}v{grid.row:.4g}" for y in ys]
            continue
        if len(ys) > 1:
            lines.append(f"M{x:g} {min(ys):.4g}V{max(ys):.4g}")
        dots += [f"M{x:g} {y:.4g}h0" for y in ys]
    for parts, style in ((lines, 1.2), (dots, min(4, grid.row / 2)), (ticks, 2)):
        if parts:
            d = "".join(dict.fromkeys(parts))
            stroke = _INK if parts is ticks else colour
            yield _tag("path", d=d, stroke=stroke, stroke_width=style, stroke_linecap="round")


def _boxes(grid: _Grid, gates: Iterable[tuple[int, Operation]], colour: str) -> Iterator[str]:
    """Gates as boxes with names, on the last qubit, and dots on the others."""
    for column, operation in gates:
        x, ys = grid.x(column), [grid.y(qubit, column) for qubit in operation.qubits]
        yield from _gate(x, ys, _name(operation), colour)


def _gate(
    x: float, ys: Sequence[float], name: str, colour: str, dashes: str = "none"
) -> Iterator[str]:
    if len(ys) > 1:
        line = f"M{x:g} {min(ys):.4g}V{max(ys):.4g}"
        yield _tag("path", d=line, stroke=colour, stroke_width=2, stroke_dasharray=dashes)
    for y in ys[:-1]:
        yield _tag("circle", cx=x, cy=y, r=4, fill=colour)
    yield _tag(
        *("rect", ()),
        **{"x": x - 14, "y": ys[-1] - 9, "width": 28, "height": 18, "rx": 3},
        **{"fill": "white", "stroke": colour, "stroke_width": 1.5},
    )
    yield _text(x, ys[-1] + 3.5, name, font_size=10)


def _name(operation: Operation) -> str:
    if operation.kind in ("measure", "reset"):
        return {"measure": "M", "reset": "|0⟩"}[operation.kind]
    gate = operation.instruction
    name = gate.base_gate.name if isinstance(gate, ControlledGate) else gate.name
    return name if len(name) <= 5 else f"{name[:4]}…"


def _mark(grid: _Grid, number: int, cut: Cut, operation: Operation, column: int) -> str:
    """A cut: its number, on a broken line between the qubits of a gate or move, or on the wire."""
    x, ys = grid.x(column), [grid.y(qubit, column) for qubit in operation.qubits]
    (first, _), (second, _) = cut.ends
    body = [
        _tag(
            "title",
            escape(
                f"cut {number}: {cut.name} on {' and '.join(map(str, operation.qubits))}, instruction "
                f"{cut.position}, between F{first} and F{second}, γ² = {cut.sampling_overhead:.4g}"
            ),
        )
    ]
    top, bottom = min(ys), max(ys)
    share = (number % 3 + 1) / 4 if bottom - top > 1.5 * grid.row else 0.5
    y = top + share * (bottom - top)
    if len(ys) == 1:
        half = grid.row / 2
        line = {"d": f"M{x:g} {y - half:.4g}v{grid.row:.4g}"}
        body.append(_tag("path", (), stroke=_INK, stroke_width=2, **line))
    elif grid.named:
        y -= 3 if ys[-1] > ys[0] else -3
        body += _gate(x, ys, _name(operation), _INK, "3 3")
    else:
        line = {"d": f"M{x:g} {top:.4g}V{bottom:.4g}", "stroke_dasharray": "3 3"}
        body.append(_tag("path", (), stroke=_INK, stroke_width=2, **line))
    size = 6.5 if grid.named else 5.5
    body += [
        _tag("circle", cx=x, cy=y, r=size, fill=_INK),
        _text(x, y + 3, str(number), font_size=size + 2, font_weight="bold", fill="white"),
    ]
    return _tag("g", body, data_cut=number)


# The graph of fragments and cuts


def _pitch(plan: CutPlan) -> int:
    return 60 if plan.num_fragments <= _TALL_BOXES else 22


def _arc_depth(plan: CutPlan, span: int) -> float:
    """How far to the right an arc between fragments reaches that are so many apart."""
    return 24 + min(_ARC, 500 / plan.num_fragments) * span


def _graph(plan: CutPlan, basis: SettingBasis) -> Iterator[str]:
    """Fragments as boxes one below the other, and the cuts between two of them as an arc."""
    pitch, settings = _pitch(plan), plan.settings_per_fragment(basis)
    pairs: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, cut in enumerate(plan.cuts):
        first, second = sorted(fragment for fragment, _ in cut.ends)
        pairs[first, second].append(number)
    for (first, second), numbers in sorted(pairs.items(), key=lambda pair: pair[0][0] - pair[0][1]):
        yield _arc(plan, first, second, numbers)
    for number, fragment in enumerate(plan.fragments):
        tall = plan.num_fragments <= _TALL_BOXES
        circuits = _counted(settings[number], "circuit")
        lines = [f"F{number} · {_counted(fragment.num_qubits, 'qubit')}", circuits]
        lines = (
            [lines[0], _short(f"qubits {ranges(fragment.qubits)}"), circuits]
            if tall
            else [" · ".join(lines)]
        )
        colour = _COLOURS[number % len(_COLOURS)]
        top = number * pitch
        body = [
            _tag("title", escape(_named(plan, number))),
            _tag(
                *("rect", ()),
                **{"x": 0, "y": top, "width": _BOX, "height": pitch - (8 if tall else 4), "rx": 5},
                **{"fill": "white", "stroke": colour, "stroke_width": 2},
            ),
            _tag("rect", x=0, y=top, width=8, height=pitch - (8 if tall else 4), rx=3, fill=colour),
        ]
        for line, text in enumerate(lines):
            weight = "normal" if line else "bold"
            body.append(
                _text(
                    16,
                    top + 15 + 14 * line if tall else top + 13,
                    text,
                    text_anchor="start",
                    font_weight=weight,
                )
            )
        yield _tag("g", body, data_box=number)


def _arc(plan: CutPlan, first: int, second: int, numbers: Sequence[int]) -> str:
    cuts = [plan.cuts[number] for number in numbers]
    pitch, depth = _pitch(plan), _arc_depth(plan, second - first)
    shift = pitch / 6
    middles = [each * pitch + pitch / 2 - 4 for each in (first, second)]
    top, bottom = middles[0] + shift, middles[1] - shift
    if first == second:
        top, bottom = middles[0] - shift, middles[0] + shift
    reach = _BOX + depth * 4 / 3
    kinds = _kinds(cuts) if len(cuts) > 1 else cuts[0].kind
    label = f"cut{'s' * (len(cuts) > 1)} {_short(ranges(numbers), 12)}: {kinds}"
    style = "6 3" if all(cut.kind == "wire" for cut in cuts) else "none"
    body = [
        _tag("title", escape(f"{kinds}: {ranges(numbers)}")),
        _tag(
            *("path", ()),
            **{"d": f"M{_BOX} {top:g}C{reach:g} {top:g} {reach:g} {bottom:g} {_BOX} {bottom:g}"},
            **{"stroke": _INK, "fill": "none", "stroke_dasharray": style},
            **{"stroke_width": 1 + min(len(cuts), 6) / 4},
        ),
        _text(
            *(_BOX + depth + 5, (top + bottom) / 2 + 3.5, label),
            **{"text_anchor": "start", "font_size": min(11, pitch / 2), **_HALO},
        ),
    ]
    return _tag("g", body, data_edge=f"{first} {second}")


# Text and tags


def _named(plan: CutPlan, fragment: int) -> str:
    qubits = ranges(plan.fragments[fragment].qubits)
    return f"F{fragment}: qubits {qubits}"


def _kinds(cuts: Sequence[Cut]) -> str:
    """How many cuts of either kind: 2 gates and 1 wire."""
    counts = Counter(cut.kind for cut in cuts)
    return " and ".join(_counted(counts[kind], kind) for kind in sorted(counts)) or "nothing"


def _counted(count: int, noun: str) -> str:
    return f"{short(count)} {noun}{'' if count == 1 else 's'}"


def _short(text: str, most: int = 28) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _text(x: float, y: float, text: str, **style: object) -> str:
    return _tag("text", [escape(text)], x=x, y=y, **style)


def _tag(name: str, body: Iterable[str] = (), **attributes: object) -> str:
    """An element; names of attributes are written with a hyphen in the place of an underscore."""
    written = "".join(
        f" {key.replace('_', '-')}={quoteattr(f'{value:g}' if isinstance(value, float) else str(value))}"
        for key, value in attributes.items()
    )
    return f"<{name}{written}>{''.join(body)}</{name}>"
