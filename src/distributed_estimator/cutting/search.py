"""Where to cut a circuit so that its fragments fit, for the least price."""

from __future__ import annotations

import logging
import math
import subprocess
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple, Protocol

import opt_einsum

from ..checks import check_kind, check_whole, from_numpy, is_number
from ..errors import CutError, InputError
from ..views import changed
from .channels import wire_sides
from .circuit import NormalCircuit
from .fragments import Cut, Fragment, separating, sides_of, split
from .gates import gate_key
from .partition import (
    Annealing,
    Cost,
    CutGraph,
    Edge,
    MetisTry,
    OutOfTime,
    Parts,
    Room,
    annealed,
    breadth_first,
    interval_partition,
    log_of,
    metis_partitions,
    shot_variance,
    tree_partition,
)
from .rewrite import CutWire, Operation
from .runs import merge_runs

_log = logging.getLogger(__name__)

_PRECISION = 0.01
SHOTS_A_CIRCUIT = 300.0
"""Shots that take as long as it takes to begin a circuit."""
_FLOPS = 250_000.0  # floating-point operations that take as long as a shot
_COSTS: tuple[Cost, ...] = ("circuits", "spreads")
_TANGLED, _TANGLE_POWER = 1e6, 2 / 3  # flops from which on shots grow with this power of them
_STEPS = 60_000
_STARTS = 6
_FINALISTS = 6
_METIS_PARTS = 4
_METIS_IMBALANCES = (30, 200)  # per mille
_MANY = 1000
"""Pairs of joined fragments from which on it takes long to plan a contraction: half a second."""


class SizedDevice(Protocol):
    """What has a number of qubits, such as a Qiskit backend or a `Target`."""

    @property
    def num_qubits(self) -> int | None:
        """How many."""


@dataclass(frozen=True)
class AutoCut:
    """Cuts to be found so that no fragment is wider than the device.

    Of the plans that fit, the one with the lowest `Prediction.price` that the search has met is
    taken. Where the circuit's gates and wires between them form a tree, as in a chain with one
    layer, none takes fewer circuits, or none fewer shots; elsewhere it comes from a graph
    partitioner and simulated annealing.

    Attributes:
        max_qubits: Widest fragment allowed. Several numbers: the widths of devices, each of which
            takes one fragment, or several that fit side by side. In the place of a number, a device
            (a Qiskit backend, or a `Target`) gives its width.
        gate_cuts: Whether gates may be cut.
        wire_cuts: Whether wires may be cut.
        max_fragments: Most fragments of one width; None: any number.
        seed: Seed of the search; the same seed finds the same cuts, unless `seconds` end it.
        seconds: Time after which the best plan so far is taken.
        max_price: A plan of a higher price is refused.

    Example:
        >>> AutoCut(max_qubits=10).max_qubits
        10
    """

    max_qubits: int | SizedDevice | Sequence[int | SizedDevice]
    gate_cuts: bool = True
    wire_cuts: bool = True
    max_fragments: int | None = None
    seed: int = 0
    seconds: float = 10.0
    max_price: float = 5e7

    __repr__ = changed

    def __post_init__(self) -> None:
        widths: Any = getattr(self.max_qubits, "num_qubits", self.max_qubits)
        if isinstance(widths, Sequence) and not isinstance(widths, str) and widths:
            widths = [getattr(width, "num_qubits", width) for width in widths]
            for width in widths:
                check_whole("max_qubits", from_numpy(width), 1)
            object.__setattr__(self, "max_qubits", tuple(map(int, widths)))
            if self.max_fragments is not None:
                raise InputError(
                    "`max_qubits` has a width for each fragment and `max_fragments` is set as "
                    "well: give one of them"
                )
        else:
            otherwise = ", a Qiskit backend or Target, or a list of these"
            check_whole("max_qubits", from_numpy(widths), 1, otherwise)
            object.__setattr__(self, "max_qubits", widths)
        check_whole("seed", from_numpy(self.seed), 0)
        if self.max_fragments is not None:
            check_whole("max_fragments", from_numpy(self.max_fragments), 1, ", or None")
        for name in ("seconds", "max_price"):
            value = getattr(self, name)
            if not (is_number(from_numpy(value)) and value > 0):
                raise InputError(f"`{name}` is {value!r}: give a number above 0")
        for name in ("gate_cuts", "wire_cuts"):
            check_kind(name, getattr(self, name), bool, "True or False")
        if not (self.gate_cuts or self.wire_cuts):
            raise InputError("`gate_cuts` and `wire_cuts` are both off: allow one of them")

    @property
    def room(self) -> Room:
        """How wide fragments may be."""
        widths: Any = self.max_qubits  # numbers, once checked
        if isinstance(widths, Sequence):
            devices = tuple(sorted(widths, reverse=True))
            return Room(devices[0], devices)
        if self.max_fragments is not None:
            return Room(widths, (widths,) * self.max_fragments)
        return Room(widths)


@dataclass(frozen=True)
class Prediction:
    """What a plan is likely to cost, from its cuts alone.

    Attributes:
        circuits: Circuits of all fragments with all settings, for one measurement basis.
        shots: For a standard error of 0.01 of a Pauli on all qubits, from the Schmidt coefficients
            of the cuts at every fragment (`cutting.partition.shot_variance`); more where fragments
            hang together in many loops, as far as the contraction tells.
        flops: Operations to contract the fragments of one query; infinite where a search has met
            many fragments whose circuits and shots alone are above its `max_price`.
        width: Qubits of the widest fragment.
    """

    circuits: int
    shots: float
    flops: float
    width: int

    @property
    def price(self) -> float:
        """All of it in shots: a circuit as 300 of them, 250,000 operations as one."""
        return self.least + self.flops / _FLOPS

    @property
    def least(self) -> float:
        """The price without the contraction."""
        return self.shots + SHOTS_A_CIRCUIT * _float(self.circuits)


def _float(number: int) -> float:
    """A count as a float; infinity if it is beyond them, as settings of hundreds of cuts are."""
    try:
        return float(number)
    except OverflowError:
        return math.inf


def predict(
    fragments: Sequence[Fragment], cuts: Sequence[Cut], most: float = math.inf
) -> Prediction:
    """What a plan of these fragments and cuts is likely to cost.

    Where circuits and shots alone cost more than `most`, no contraction of many fragments is looked
    for, which takes longer than all of the search.
    """
    spreads = [1.0 for _ in fragments]
    joints: dict[tuple[int, ...], int] = {}  # by the fragments that cuts join, of all these as one
    for cut in cuts:
        ends = tuple(sorted(fragment for fragment, _ in cut.ends))
        joints[ends] = joints.get(ends, 1) * max(cut.rank)  # as its core lies between the two
        for fragment in ends:
            spreads[fragment] *= cut.spread
    slots: list[list[tuple[int, int]]] = [[] for _ in fragments]
    for number, (ends, rank) in enumerate(joints.items()):
        for fragment in ends:
            slots[fragment].append((number, rank))
    held = [spread for spread, own in zip(spreads, slots, strict=True) if own]
    circuits = sum(fragment.num_settings("full") for fragment in fragments)
    width = max((fragment.num_qubits for fragment in fragments), default=0)
    untangled = Prediction(circuits, shot_variance(held) / _PRECISION**2, math.inf, width)
    if untangled.least > most and len(joints) > _MANY:
        return untangled
    flops = _flops([own for own in slots if own])
    tangled = max(1.0, flops / _TANGLED) ** _TANGLE_POWER
    shots = shot_variance(held) * tangled / _PRECISION**2
    return Prediction(circuits, shots, flops, width)


def _flops(slots: list[list[tuple[int, int]]]) -> float:
    """Operations to contract tensors whose axes are cuts, each with its number and size."""
    if not slots:
        return 0.0
    letters = ["".join(opt_einsum.get_symbol(number) for number, _ in own) for own in slots]
    shapes = [tuple(rank for _, rank in own) for own in slots]
    _, path = opt_einsum.contract_path(
        f"{','.join(letters)}->", *shapes, shapes=True, optimize="greedy"
    )
    return _float(path.opt_cost)


def other_widths(width: int) -> list[int]:
    """Widths to compare one with: half and twice as many qubits, one more and one less, itself."""
    return sorted({max(1, width // 2), max(1, width - 1), width, width + 1, 2 * width})


class Found(NamedTuple):
    """A circuit with wire cuts put in, the numbers of its operations to cut, and what it costs."""

    normal: NormalCircuit
    chosen: frozenset[int]
    predicted: Prediction


def find_cuts(normal: NormalCircuit, search: AutoCut) -> Found:
    """Choose cuts for a circuit whose gates act on at most two qubits.

    Raises:
        CutError: No plan fits for a price that is allowed.
    """
    begun = time.monotonic()
    places = _Places(normal, search)

    def out_of_time() -> bool:
        # What is found is still to be compared.
        return time.monotonic() >= begun + 0.7 * search.seconds

    def late() -> bool:
        return time.monotonic() >= begun + search.seconds

    found = places.best(out_of_time, late)
    allowed = search.max_qubits
    if found is None:
        raise CutError(
            f"no plan under `max_qubits` {allowed} was found for {normal.num_qubits} qubits: "
            + places.remedy()
        )
    if found.predicted.price > search.max_price:
        predicted = found.predicted
        price, contraction = f"{predicted.price:.2g}", f"{predicted.flops:.2g} operations"
        if predicted.flops == math.inf > predicted.least:
            price, contraction = f"more than {predicted.least:.2g}", "and uncounted operations"
        raise CutError(
            f"the best plan found under `max_qubits` {allowed} has a price of {price} "
            f"({_float(predicted.circuits):.2g} circuits, {predicted.shots:.2g} shots for a "
            f"standard error of 0.01, {contraction} to contract), above `max_price` "
            f"{search.max_price:.2g}: " + places.price_remedy(found, late)
        )
    return found


class _Places:
    """A circuit as graphs, with a vertex for either end of each two-qubit gate.

    Vertices that may not be parted, as one kind of cut is not allowed, are merged.

    Attributes:
        graph: Merged vertices and what joins them.
        groups: Vertices that may move together: those of a gate, and those of a qubit.
    """

    def __init__(self, normal: NormalCircuit, search: AutoCut) -> None:
        self._normal = normal
        self._search = search
        self._gates = [i for i, op in enumerate(normal.operations) if len(op.qubits) == 2]
        qubits = [q for i in self._gates for q in normal.operations[i].qubits]
        self._before: list[int | None] = []
        wires: dict[int, list[int]] = defaultdict(list)
        for vertex, qubit in enumerate(qubits):
            self._before.append(wires[qubit][-1] if wires[qubit] else None)
            wires[qubit].append(vertex)
        starts = [int(before is None) for before in self._before]
        gates, lines = self._gate_edges(), self._wire_edges()
        kept = ([] if search.gate_cuts else gates) + ([] if search.wire_cuts else lines)
        self._merged = CutGraph.of(starts, kept).components()
        self.graph = CutGraph.of(starts, [*gates, *lines]).contracted(self._merged)
        pairs = [[2 * number, 2 * number + 1] for number in range(len(self._gates))]
        self._wires = list(wires.values())
        self.groups = [
            group
            for vertices in pairs + self._wires
            if len(group := sorted({self._merged[vertex] for vertex in vertices})) > 1
        ]

    def _gate_edges(self) -> list[Edge]:
        joints: dict[str, Edge] = {}
        edges = []
        for number, index in enumerate(self._gates):
            operation = self._normal.operations[index]
            key = gate_key(operation.instruction)
            if key not in joints:
                sides, ends = sides_of(operation, self._normal.angles), ((0, 0), (0, 1))
                joints[key] = _edge(
                    Cut("gate", "", (0, 1), 0, sides, ends, operation.kernel, operation.angles)
                )
            edges.append(replace(joints[key], ends=(2 * number, 2 * number + 1)))
        return edges

    def _wire_edges(self) -> list[Edge]:
        joint = _edge(Cut("wire", "", (0, 0), 0, wire_sides(), ((0, 0), (0, 1)), None, ()))
        return [
            replace(joint, ends=(before, vertex), qubits=(0, 1))
            for vertex, before in enumerate(self._before)
            if before is not None
        ]

    def best(self, out_of_time: OutOfTime, late: OutOfTime) -> Found | None:
        """The plan of the lowest price that is found; None where none fits.

        Nothing is searched for when it is `out_of_time`, and no second plan priced when it is
        `late`.
        """
        room, graph = self._search.room, self.graph
        whole = graph.components()
        if not graph.state(whole, room).excess:
            return self._found(whole)
        if graph.least_width > room.width:
            return None
        starts = self._trees(graph)
        if not starts or not graph.is_forest:
            starts = self._starts(starts, out_of_time)
            starts = [list(parts) for parts in dict.fromkeys(map(tuple, starts))]
            starts.sort(key=self._order)
            # The best, and some of all the others, as annealing leads far away.
            chosen = [*starts[:1], *starts[1 :: max(1, -(-len(starts) // (_STARTS - 1)))]]
            for number, start in enumerate(chosen):
                annealing = Annealing(_price, _STEPS, self._search.seed + number, out_of_time)
                starts.append(annealed(graph, start, room, self.groups, annealing))
        best = sorted(set(map(tuple, starts)), key=self._order)[:_FINALISTS]
        found: list[Found] = []
        for parts in best:
            if not self._order(parts)[0] and not (found and late()):
                found.append(self._found(list(parts)))
        return min(found, key=lambda f: f.predicted.price, default=None)

    def _order(self, parts: Sequence[int]) -> tuple[int, float, Sequence[int]]:
        state = self.graph.state(list(parts), self._search.room)
        return state.excess, _price(*state.costs()), parts

    def _trees(self, graph: CutGraph) -> list[Parts]:
        """The best partitions of a forest, where any number of parts is allowed."""
        room = self._search.room
        if not graph.is_forest or room.devices:
            return []
        found = (tree_partition(graph, room.width, cost) for cost in _COSTS)
        return [parts for parts in found if parts is not None]

    def _starts(self, found: list[Parts], out_of_time: OutOfTime) -> list[Parts]:
        """Partitions of the graph, and of that whose vertices are whole qubits."""
        room, lifts = self._search.room, (self._whole_qubits(), range(len(self.graph.qubits)))
        graphs = [self.graph.contracted(lift) for lift in lifts]
        for graph, lift, divided in zip(graphs, lifts, self._metis(graphs), strict=True):
            orders = range(len(graph.qubits)), breadth_first(graph)
            divided += self._trees(graph)
            found += [[parts[vertex] for vertex in lift] for parts in divided]
            for order, cost in product(orders, _COSTS):
                if found and out_of_time():
                    break
                parts = interval_partition(graph, order, room, cost)
                found += [] if parts is None else [[parts[vertex] for vertex in lift]]
        return found

    def _whole_qubits(self) -> Parts:
        joined = [
            Edge((self._merged[wire[0]], self._merged[vertex]))
            for wire in self._wires
            for vertex in wire[1:]
            if self._merged[wire[0]] != self._merged[vertex]
        ]
        return CutGraph.of(self.graph.qubits, joined).components()

    def _metis(self, graphs: Sequence[CutGraph]) -> list[list[Parts]]:
        """Partitions of about as many parts as are needed; none where METIS fails."""
        fewest = max(2, -(-sum(self.graph.qubits) // self._search.room.width))
        tries = [
            MetisTry(parts, imbalance, self._search.seed)
            for parts in range(fewest, fewest + _METIS_PARTS)
            for imbalance in _METIS_IMBALANCES
            if parts <= min(len(graph.qubits) for graph in graphs)
        ]
        try:
            return metis_partitions(graphs, tries, 0.3 * self._search.seconds)
        except subprocess.TimeoutExpired as error:  # as short searches are to expect
            _log.info("cuts are searched for without METIS: %s", _reason(error))
            return [[] for _ in graphs]
        except (subprocess.SubprocessError, OSError, ValueError) as error:
            _log.warning("cuts are searched for without METIS, which failed: %s", _reason(error))
            return [[] for _ in graphs]

    def _found(self, parts: Parts) -> Found:
        """The circuit cut where a partition cuts it."""
        of = [parts[merged] for merged in self._merged]
        operations: list[Operation] = []
        chosen: set[int] = set()
        gates = {index: number for number, index in enumerate(self._gates)}
        for index, operation in enumerate(self._normal.operations):
            number = gates.get(index)
            if number is not None:
                for vertex, qubit in zip(
                    (2 * number, 2 * number + 1), operation.qubits, strict=True
                ):
                    before = self._before[vertex]
                    if before is not None and of[before] != of[vertex]:
                        chosen.add(len(operations))
                        operations.append(Operation(CutWire(), (qubit,), operation.position))
                if of[2 * number] != of[2 * number + 1]:
                    chosen.add(len(operations))
            operations.append(operation)
        normal = replace(self._normal, operations=tuple(operations))
        normal, cut = merge_runs(normal, separating(normal, chosen))
        fragments, cuts = split(normal, cut, range(normal.num_qubits))
        return Found(normal, cut, predict(fragments, cuts, self._search.max_price))

    def remedy(self) -> str:
        """The least that would give a plan, where there is none."""
        search, devices, needed = self._search, self._search.room.devices, sum(self.graph.qubits)
        if devices is None:  # gates are not cut, and one of them needs more
            return (
                f"allow {self.graph.least_width} qubits, which are enough, or set `gate_cuts` to "
                "True"
            )
        if sum(devices) < needed:
            more = needed - sum(devices)
            return (
                f"{len(devices)} fragments hold {sum(devices)} qubits, and gates join {needed}: "
                f"allow {more} more, in wider fragments or more of them"
            )
        off = [name for name in ("gate_cuts", "wire_cuts") if not getattr(search, name)]
        also = f", or set `{off[0]}` to True" if off else ", or raise `seconds`"
        return "allow wider fragments, or more of them" + also

    def price_remedy(self, found: Found, late: OutOfTime) -> str:
        """What would give a plan whose price is allowed, where the best found has a higher one."""
        price = found.predicted.price
        higher = []
        if price < math.inf:  # two digits, and not below the price
            higher = [f"raise `max_price` to {1.05 * price:.2g}"]
        width = self._least_width(late)
        return ", or ".join([f"allow {width} qubits"] * (width is not None) + higher)

    def _least_width(self, late: OutOfTime) -> int | None:
        """Width for which gates can be cut, qubits in order, at a price that is allowed, if any.

        It is the least one unless it gets `late`.
        """
        clusters, most = self._whole_qubits(), self._search.max_price
        if self._found(self.graph.components()).predicted.price > most:
            return None
        graph = self.graph.contracted(clusters)
        low, high = self._search.room.width, sum(self.graph.qubits)
        while high - low > 1 and not late():
            middle = (low + high) // 2
            parts = interval_partition(graph, range(len(graph.qubits)), Room(middle), "spreads")
            if parts is None or self._price_of(parts, clusters) > most:
                low = middle
            else:
                high = middle
        return high

    def _price_of(self, parts: Parts, clusters: Parts) -> float:
        return self._found([parts[cluster] for cluster in clusters]).predicted.price


def _reason(error: Exception) -> str:
    """Why METIS failed, without the script that calls it."""
    if isinstance(error, subprocess.TimeoutExpired):
        return f"it took longer than {error.timeout:.2g} seconds"
    if isinstance(error, subprocess.CalledProcessError):
        last = str(error.stderr or "").strip().rpartition("\n")[2]
        return f"its process ended with code {error.returncode}" + (f", {last}" if last else "")
    return str(error)


def _edge(cut: Cut) -> Edge:
    """What a cut multiplies at its two ends."""
    first, second = (log_of(len(side.basis("full").operations)) for side in cut.sides)
    spread = log_of(cut.spread)
    return Edge((0, 1), (first, second), (spread, spread))


def _price(circuits: float, spread: float) -> float:
    return spread / _PRECISION**2 + SHOTS_A_CIRCUIT * circuits
