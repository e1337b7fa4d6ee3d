"""Partitions of a graph into parts that fit, of least cost: exact on trees, searched elsewhere.

A vertex is a place on a qubit's wire where a two-qubit gate acts; an edge is such a gate, or the
wire from one vertex to the next. Cutting an edge between two parts multiplies the costs of either
by factors, and a cut wire begins a qubit in the part downstream. There are two kinds of factors:
numbers of settings, whose products sum to circuits, and spreads, whose products the variance of a
shot grows with. Factors are kept as whole multiples of a small logarithm: these add up exactly, and
the same on every processor.
"""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Literal, NamedTuple, TypeAlias

from ..checks import is_whole

Parts: TypeAlias = list[int]
"""The part of each vertex."""
OutOfTime: TypeAlias = Callable[[], bool]
Cost = Literal["circuits", "spreads"]

_UNIT = 2.0**20
_CROWDING = 0.75
_LARGEST = 600.0  # of an exponent, as sums of its powers are finite


def log_of(factor: float) -> int:
    """A factor as a whole multiple of the unit of logarithms."""
    return round(math.log(factor) * _UNIT)


def _power(log: int) -> float:
    return math.exp(min(log / _UNIT, _LARGEST))


def shot_variance(spreads: Sequence[float]) -> float:
    """About the variance of one shot, were shots divided between fragments as they need them.

    A shot of fragment f has about the variance s_f = Π (Σ s)², with the Schmidt coefficients s of
    every cut there, times the mean square of what the other fragments multiply it with, which is
    the smaller the more there are. Σ s_f over their number to the power of 3/4 is what agreed best
    with what pilots asked for (docs/decisions/0030).

    Args:
        spreads: s_f of all fragments; zero for those without cuts.
    """
    cut = len(spreads) - spreads.count(0.0)
    return sum(spreads) / math.pow(cut, _CROWDING) if cut else 1.0


@dataclass(frozen=True)
class Room:
    """How wide parts may be.

    Attributes:
        width: Most qubits of a part.
        devices: Widths of devices, widest first, of which each takes one part; None: there may be
            any number of parts.
    """

    width: int
    devices: tuple[int, ...] | None = None

    def excess(self, widths: Iterable[int]) -> int:
        """Qubits that have no place, for parts of these widths; a part has one at least."""
        if self.devices is None:
            return sum(w - self.width for w in widths if w > self.width)
        ordered = sorted(widths, reverse=True)
        room = [*self.devices, *[0] * len(ordered)]
        return sum(max(0, w - r) for w, r in zip(ordered, room, strict=False))


@dataclass(frozen=True)
class Edge:
    """What joins two vertices, and what it costs to cut it.

    Attributes:
        ends: The two vertices.
        circuits: What the circuits of the part at either end are multiplied by, as `log_of` has it.
        spreads: The same of the variance of a shot.
        qubits: How many qubits begin in the part at either end: one downstream of a wire.
    """

    ends: tuple[int, int]
    circuits: tuple[int, int] = (0, 0)
    spreads: tuple[int, int] = (0, 0)
    qubits: tuple[int, int] = (0, 0)

    def merged(self, other: Edge) -> Edge:
        """Both as one edge, which have the same ends in the same order."""
        return Edge(
            self.ends,
            _sum(self.circuits, other.circuits),
            _sum(self.spreads, other.spreads),
            _sum(self.qubits, other.qubits),
        )

    def turned(self) -> Edge:
        """The same with its ends in the other order."""
        return Edge(self.ends[::-1], self.circuits[::-1], self.spreads[::-1], self.qubits[::-1])


def _sum(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return one[0] + other[0], one[1] + other[1]


class Side(NamedTuple):
    """An edge as one of its vertices has it: `far` is what the part at the other end gets."""

    other: int
    circuits: int
    far_circuits: int
    spread: int
    far_spread: int
    qubits: int
    far_qubits: int

    def factors(self, cost: Cost) -> tuple[int, int]:
        """What a cost of the parts here and there is multiplied by."""
        if cost == "circuits":
            return self.circuits, self.far_circuits
        return self.spread, self.far_spread


@dataclass(frozen=True, eq=False)
class CutGraph:
    """Vertices with the qubits that begin there, and edges, at most one between two vertices.

    Attributes:
        qubits: Per vertex, how many qubits begin there.
        edges: Each with its smaller vertex first.
    """

    qubits: tuple[int, ...]
    edges: tuple[Edge, ...]

    @staticmethod
    def of(qubits: Iterable[int], edges: Iterable[Edge]) -> CutGraph:
        """A graph of edges in any order, parallel ones merged."""
        merged: dict[tuple[int, int], Edge] = {}
        for edge in edges:
            edge = edge if edge.ends[0] < edge.ends[1] else edge.turned()
            known = merged.get(edge.ends)
            merged[edge.ends] = edge if known is None else known.merged(edge)
        return CutGraph(tuple(qubits), tuple(merged.values()))

    @cached_property
    def around(self) -> tuple[tuple[Side, ...], ...]:
        """The edges of each vertex."""
        found: list[list[Side]] = [[] for _ in self.qubits]
        for edge in self.edges:
            for one in (edge, edge.turned()):
                here, there = one.ends
                found[here].append(Side(there, *one.circuits, *one.spreads, *one.qubits))
        return tuple(map(tuple, found))

    @cached_property
    def least_width(self) -> int:
        """What a part has to hold at least: the qubits that meet at a vertex."""
        return max(
            qubits + sum(side.qubits for side in sides)
            for qubits, sides in zip(self.qubits, self.around, strict=True)
        )

    def contracted(self, clusters: Sequence[int]) -> CutGraph:
        """The graph whose vertices are clusters, numbered from 0, of which no edge is cut."""
        qubits = [0] * (max(clusters, default=-1) + 1)
        for vertex, cluster in enumerate(clusters):
            qubits[cluster] += self.qubits[vertex]
        between = (
            replace(e, ends=(clusters[e.ends[0]], clusters[e.ends[1]]))
            for e in self.edges
            if clusters[e.ends[0]] != clusters[e.ends[1]]
        )
        return CutGraph.of(qubits, between)

    def components(self, parts: Parts | None = None) -> Parts:
        """The connected components of the parts, numbered by their first vertices."""
        found = [-1] * len(self.qubits)
        number = 0
        for first in range(len(found)):
            if found[first] >= 0:
                continue
            stack = [first]
            found[first] = number
            while stack:
                vertex = stack.pop()
                for other, *_ in self.around[vertex]:
                    if found[other] < 0 and (parts is None or parts[other] == parts[vertex]):
                        found[other] = number
                        stack.append(other)
            number += 1
        return found

    @cached_property
    def is_forest(self) -> bool:
        """Whether no edge closes a loop."""
        trees = max(self.components(), default=-1) + 1
        return len(self.edges) == len(self.qubits) - trees

    def state(self, parts: Parts, room: Room) -> State:
        """A partition with what it costs; its parts are connected where any number may be."""
        return State(self, parts if room.devices else self.components(parts), room)


class State:
    """A partition that changes vertex by vertex, and what it costs.

    Attributes:
        parts: The part of each vertex.
        widths: Qubits of each part.
    """

    def __init__(self, graph: CutGraph, parts: Parts, room: Room) -> None:
        numbers = {part: number for number, part in enumerate(dict.fromkeys(parts))}
        self.parts = [numbers[part] for part in parts]
        self.widths = [0] * len(numbers)
        self._graph = graph
        self._room = room
        self._circuits = [0] * len(numbers)
        self._spreads = [0] * len(numbers)
        self._members = [0] * len(numbers)
        for vertex, part in enumerate(self.parts):
            self._members[part] += 1
            self.widths[part] += graph.qubits[vertex]
            for side in graph.around[vertex]:
                if self.parts[side.other] != part:
                    self._circuits[part] += side.circuits
                    self._spreads[part] += side.spread
                    self.widths[part] += side.qubits
        self._costs = [0.0] * len(numbers), [0.0] * len(numbers)
        for part in range(len(numbers)):
            self._count(part)

    def costs(self) -> tuple[float, float]:
        """Circuits, and the variance of a shot as `shot_variance` has it."""
        return sum(self._costs[0]), shot_variance(self._costs[1])

    def _count(self, part: int) -> None:
        """Bring the costs of a part that has changed up to date."""
        circuits, spreads = self._costs
        is_used, log = self._members[part], self._spreads[part]
        circuits[part] = _power(self._circuits[part]) if is_used else 0.0
        spreads[part] = _power(log) if is_used and log else 0.0

    @property
    def excess(self) -> int:
        """Qubits that have no place."""
        return self._room.excess(self.widths)

    def empty_part(self) -> int:
        """A part without vertices."""
        for part, members in enumerate(self._members):
            if not members:
                return part
        for numbers in (self._circuits, self._spreads, self.widths, self._members):
            numbers.append(0)
        for costs in self._costs:
            costs.append(0.0)
        return len(self._members) - 1

    def move(self, vertices: Sequence[int], target: int) -> None:
        """Put vertices into a part."""
        parts, widths, members = self.parts, self.widths, self._members
        circuits, spreads = self._circuits, self._spreads
        touched = {target}
        for vertex in vertices:
            source = parts[vertex]
            if source == target:
                continue
            touched.add(source)
            for side in self._graph.around[vertex]:
                other, one, far_one, two, far_two, qubits, far_qubits = side
                there = parts[other]
                touched.add(there)
                if there != source:
                    circuits[source] -= one
                    circuits[there] -= far_one
                    spreads[source] -= two
                    spreads[there] -= far_two
                    widths[source] -= qubits
                    widths[there] -= far_qubits
                if there != target:
                    circuits[target] += one
                    circuits[there] += far_one
                    spreads[target] += two
                    spreads[there] += far_two
                    widths[target] += qubits
                    widths[there] += far_qubits
            own = self._graph.qubits[vertex]
            widths[source] -= own
            widths[target] += own
            members[source] -= 1
            members[target] += 1
            parts[vertex] = target
        for part in touched:
            self._count(part)


_MOST_STATES = 48
_HOT, _COLD = 1.5, 0.02
_NEW_PART = 0.02
_SAME = 1e-9


def tree_partition(graph: CutGraph, width: int, cost: Cost) -> Parts | None:
    """The partition of least cost of a forest into parts that are no wider than `width`.

    Dynamic programming from the leaves: of each subtree, for each width of the part that holds its
    root, the pairs of this part's cost so far and the other parts' cost that no pair beats in both.

    Returns:
        None where none fits.
    """
    order, parents = _rooted(graph)
    tables = {vertex: [_Partial(graph.qubits[vertex], 0, 0.0)] for vertex in order}
    for vertex in reversed(order):
        parent = parents[vertex]
        if parent is None:
            continue
        child = tables.pop(vertex)
        side = next(side for side in graph.around[parent] if side.other == vertex)
        factor, far = side.factors(cost)
        apart = [
            _Partial(side.qubits, factor, one.closed + _power(one.open + far), one, cut=vertex)
            for one in child
            if one.width + side.far_qubits <= width
        ]
        merged = [
            _Partial(
                above.width + one.width,
                above.open + one.open,
                above.closed + one.closed,
                above,
                one,
            )
            for above in tables[parent]
            for one in _undominated(apart) + child
            if above.width + one.width <= width
        ]
        if not merged:
            return None
        tables[parent] = _undominated(merged)
    cut: set[int] = set()
    for states in tables.values():
        stack: list[_Partial | None] = [min(states, key=_Partial.order)]
        while stack:
            state = stack.pop()
            if state is not None:
                if state.cut is not None:
                    cut.add(state.cut)
                stack += [state.first, state.second]
    parts: dict[int, int] = {}
    for vertex in order:
        parent = parents[vertex]
        parts[vertex] = vertex if parent is None or vertex in cut else parts[parent]
    return [parts[vertex] for vertex in range(len(graph.qubits))]


class _Partial:
    """A partition of a subtree: the root's part is open, and where it was cut is remembered."""

    __slots__ = ("closed", "cut", "first", "open", "second", "width")

    def __init__(
        self,
        width: int,
        open: int,
        closed: float,
        first: _Partial | None = None,
        second: _Partial | None = None,
        cut: int | None = None,
    ) -> None:
        self.width = width
        self.open = open
        self.closed = closed
        self.first = first
        self.second = second
        self.cut = cut

    def order(self) -> tuple[float, int, int]:
        """Those that cost least first, were the open part to close as it is."""
        return _power(self.open) + self.closed, self.open, self.width


def _undominated(states: list[_Partial]) -> list[_Partial]:
    """States that no other beats in width, open and closed cost; at most some of each width."""
    kept: list[_Partial] = []
    sizes: dict[int, int] = defaultdict(int)
    for state in sorted(states, key=_Partial.order):
        if sizes[state.width] < _MOST_STATES and not any(
            k.width <= state.width and k.open <= state.open and k.closed <= state.closed
            for k in kept
        ):
            kept.append(state)
            sizes[state.width] += 1
    return kept


def _rooted(graph: CutGraph) -> tuple[list[int], list[int | None]]:
    """Vertices of a forest with parents first, and each one's parent."""
    parents: list[int | None] = [None] * len(graph.qubits)
    seen = [False] * len(graph.qubits)
    order: list[int] = []
    for first in range(len(seen)):
        if seen[first]:
            continue
        seen[first] = True
        stack = [first]
        while stack:
            vertex = stack.pop()
            order.append(vertex)
            for other, *_ in graph.around[vertex]:
                if not seen[other]:
                    seen[other] = True
                    parents[other] = vertex
                    stack.append(other)
    return order, parents


def interval_partition(
    graph: CutGraph, order: Sequence[int], room: Room, cost: Cost
) -> Parts | None:
    """The partition of least cost into intervals of an order: dynamic programming along it.

    Where devices take a part each, they take intervals in the order of their widths.

    Returns:
        None where none fits.
    """
    size = len(order)
    rounds = len(room.devices) if room.devices else 1
    best = [[0.0, *[math.inf] * size] for _ in range(rounds + 1)]
    begins = [[(0, 0)] * (size + 1) for _ in range(rounds + 1)]
    for start in range(size):
        for stop, qubits, own in _intervals(graph, order, start, room.width, cost):
            for number in range(rounds):
                # Intervals of any number stay in one table; devices go from each to the next.
                source, target = (number, number + 1) if room.devices else (0, 0)
                total = best[source][start] + own
                wide = room.devices[number] if room.devices else room.width
                if qubits <= wide and total < best[target][stop]:
                    best[target][stop] = total
                    begins[target][stop] = source, start
    number = min(range(rounds + 1), key=lambda n: best[n][size])
    if best[number][size] == math.inf:
        return None
    parts = [0] * size
    stop = size
    while stop:
        number, start = begins[number][stop]
        for vertex in order[start:stop]:
            parts[vertex] = start
        stop = start
    return parts


def _intervals(
    graph: CutGraph, order: Sequence[int], start: int, width: int, cost: Cost
) -> Iterator[tuple[int, int, float]]:
    """Intervals from a start, until they grow too wide: where they stop, their width and cost."""
    place = {vertex: number for number, vertex in enumerate(order)}
    log, qubits, least = 0, 0, 0
    for stop in range(start, len(order)):
        vertex = order[stop]
        qubits += graph.qubits[vertex]
        least += graph.qubits[vertex]
        for side in graph.around[vertex]:
            factor, far = side.factors(cost)
            if start <= place[side.other] < stop:
                log -= far
                qubits -= side.far_qubits
            else:
                log += factor
                qubits += side.qubits
                if place[side.other] < start:  # remains outside
                    least += side.qubits
        if least > width:
            return
        yield stop + 1, qubits, _power(log)


def breadth_first(graph: CutGraph) -> list[int]:
    """Vertices by their distance from one end of the graph (Cuthill and McKee, 1969)."""
    found: list[int] = []
    for component in _by_component(graph):
        first = component[0]
        for _ in range(2):  # the last vertex reached is far from the middle
            first = _layers(graph, first)[-1]
        found += _layers(graph, first)
    return found


def _by_component(graph: CutGraph) -> list[list[int]]:
    groups: dict[int, list[int]] = defaultdict(list)
    for vertex, component in enumerate(graph.components()):
        groups[component].append(vertex)
    return list(groups.values())


def _layers(graph: CutGraph, first: int) -> list[int]:
    found, seen = [first], {first}
    for vertex in found:
        for other in sorted(
            (o for o, *_ in graph.around[vertex]), key=lambda o: (len(graph.around[o]), o)
        ):
            if other not in seen:
                seen.add(other)
                found.append(other)
    return found


@dataclass(frozen=True)
class Annealing:
    """What is made small, and how much is searched for it.

    Attributes:
        price: Of circuits and the variance of a shot.
        steps: How many moves are tried.
        seed: Of their choice.
        out_of_time: When to end at once.
    """

    price: Callable[[float, float], float]
    steps: int
    seed: int
    out_of_time: OutOfTime


def annealed(
    graph: CutGraph,
    parts: Parts,
    room: Room,
    groups: Iterable[Sequence[int]],
    annealing: Annealing,
) -> Parts:
    """A partition no worse than the one given, found by simulated annealing.

    A step moves a vertex at a cut edge, or a group of vertices that holds it, such as those of a
    qubit or of a gate, to the part across, or now and then to a part of its own.
    """
    draw = random.Random(annealing.seed)
    state = graph.state(parts, room)
    holding: list[list[Sequence[int]]] = [[(vertex,)] for vertex in range(len(graph.qubits))]
    for group in groups:
        for vertex in group:
            holding[vertex].append(group)

    def energy_of() -> float:
        return math.log(annealing.price(*state.costs())) + 2.0 * state.excess

    energy = lowest = energy_of()
    best = list(state.parts)
    for step in range(annealing.steps):
        if not step % 256 and annealing.out_of_time():
            break
        edge = graph.edges[int(draw.random() * len(graph.edges))]
        here, there = edge.ends if draw.random() < 0.5 else edge.ends[::-1]
        target = state.parts[there]
        if target == state.parts[here]:
            if draw.random() > _NEW_PART:
                continue
            target = state.empty_part()
        group = holding[here][int(draw.random() * len(holding[here]))]
        before = [state.parts[vertex] for vertex in group]
        state.move(group, target)
        changed = energy_of()
        temperature = _HOT * (_COLD / _HOT) ** (step / annealing.steps)
        if changed < energy + _SAME or draw.random() < math.exp((energy - changed) / temperature):
            energy = changed
            if energy < lowest - _SAME:
                best, lowest = list(state.parts), energy
        else:
            for vertex, part in zip(group, before, strict=True):
                state.move((vertex,), part)
    return best


# Run in a process of its own, as a partitioner in C may crash or hang.
_METIS = """
import json, sys
import pymetis
found = []
for xadj, adjncy, vweights, eweights, tries in json.load(sys.stdin):
    for parts, ufactor, seed in tries:
        division = pymetis.part_graph(
            parts,
            pymetis.CSRAdjacency(xadj, adjncy),
            vweights=vweights,
            eweights=eweights,
            options=pymetis.Options(seed=seed, ufactor=ufactor),
        )
        found.append(list(division.vertex_part))
json.dump(found, sys.stdout)
"""


class MetisTry(NamedTuple):
    """A partition to ask METIS for: of so many parts, out of balance by so many per mille."""

    parts: int
    imbalance: int
    seed: int


def metis_partitions(
    graphs: Sequence[CutGraph], tries: Sequence[MetisTry], seconds: float
) -> list[list[Parts]]:
    """The partitions that METIS (Karypis and Kumar, 1998) finds of each graph, one a try.

    Raises:
        subprocess.SubprocessError: It crashed, or took longer than `seconds`.
        ValueError: What it returned is no answer.
    """
    answer = subprocess.run(
        [sys.executable, "-c", _METIS],
        input=json.dumps([(*_adjacency(graph), tries) for graph in graphs]),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=True,
    )
    found = json.loads(answer.stdout)
    sizes = [len(graph.qubits) for graph in graphs for _ in tries]
    if not (
        isinstance(found, list)
        and [isinstance(parts, list) and len(parts) for parts in found] == sizes
        and all(is_whole(part) for parts in found for part in parts)
    ):
        raise ValueError("it returned something else than a part for each vertex")
    divided = iter(found)
    return [[next(divided) for _ in tries] for _ in graphs]


def _adjacency(graph: CutGraph) -> tuple[list[int], list[int], list[int], list[int]]:
    """METIS's arrays: where each vertex's edges begin, their other ends, and weights of both."""
    sides = [side for around in graph.around for side in around]
    starts = [0, *accumulate(map(len, graph.around))]
    # METIS takes positive whole numbers.
    weights = [max(1, (s.circuits + s.far_circuits + s.spread + s.far_spread) >> 13) for s in sides]
    return starts, [side.other for side in sides], list(graph.qubits), weights
