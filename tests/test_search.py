"""Cuts that are searched for: they fit, cost little, and are the best where that can be known."""

import subprocess
from itertools import product

import networkx as nx
import numpy as np
import pytest
from helpers import entangled, reference
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import RXXGate, real_amplitudes

from distributed_estimator import AutoCut, DistributedEstimator
from distributed_estimator.cutting import CutPlan, partition, search
from distributed_estimator.cutting.partition import (
    CutGraph,
    Edge,
    Room,
    breadth_first,
    interval_partition,
    log_of,
    shot_variance,
    tree_partition,
)
from distributed_estimator.errors import CutError


@pytest.fixture(autouse=True)
def short_searches(monkeypatch):
    """These circuits are small."""
    monkeypatch.setattr(search, "_STEPS", 2000)


def widths(plan):
    return sorted((fragment.num_qubits for fragment in plan.fragments), reverse=True)


def pairs(num_qubits, edges, angle=None):
    """A circuit with a gate for each edge, between rotations."""
    circuit = QuantumCircuit(num_qubits)
    for qubit in range(num_qubits):
        circuit.ry(0.3 + qubit, qubit)
    for one, other in edges:
        if angle is None:
            circuit.cx(one, other)
        else:
            circuit.rxx(angle, one, other)
        circuit.ry(0.2, other)
    return circuit


def cut_graph(edges, seed):
    """A graph of gates and wires with random factors; a wire begins no qubit."""
    rng = np.random.default_rng(seed)
    starts, found = {v: 1 for edge in edges for v in edge}, []
    for one, other in edges:
        factors = [tuple(log_of(f) for f in rng.integers(2, 7, 2)) for _ in range(2)]
        is_wire = rng.random() < 0.5
        if is_wire:
            starts[max(one, other)] = 0
        ends = min(one, other), max(one, other)
        found.append(Edge(ends, *factors, (0, int(is_wire))))
    return CutGraph.of([starts[v] for v in range(len(starts))], found)


def cost_of(graph, parts, cost):
    """The sum over parts of the products of their factors."""
    products = dict.fromkeys(parts, 0)
    for edge in graph.edges:
        for end, factor in zip(edge.ends, getattr(edge, cost), strict=True):
            if parts[edge.ends[0]] != parts[edge.ends[1]]:
                products[parts[end]] += factor / log_of(np.e)
    return float(np.exp(list(products.values())).sum())


def best_by_trial(graph, width, cost):
    """The least cost of all choices of edges to cut."""
    least = np.inf
    for cut in product([False, True], repeat=len(graph.edges)):
        whole = [edge for edge, is_cut in zip(graph.edges, cut, strict=True) if not is_cut]
        parts = CutGraph.of(graph.qubits, whole).components()
        if not graph.state(parts, Room(width)).excess:
            least = min(least, cost_of(graph, parts, cost))
    return least


@pytest.mark.parametrize("cost", ["circuits", "spreads"])
@pytest.mark.parametrize("seed", range(6))
def test_partitions_of_trees_are_the_best_there_are(seed, cost):
    edges = list(nx.random_labeled_tree(10, seed=seed).edges)
    graph = cut_graph(edges, seed)
    assert graph.is_forest
    for width in (2, 3, 5):
        parts, best = tree_partition(graph, width, cost), best_by_trial(graph, width, cost)
        assert (parts is None) == (best == np.inf)
        if parts is not None:
            assert graph.state(parts, Room(width)).excess == 0
            assert cost_of(graph, parts, cost) == pytest.approx(best)


@pytest.mark.parametrize("seed", range(4))
def test_partitions_into_intervals_are_the_best_of_a_chain(seed):
    """Along a chain, intervals are all the partitions there are."""
    graph = cut_graph([(v, v + 1) for v in range(10)], seed)
    order = breadth_first(graph)
    assert order in (list(range(11)), list(range(11))[::-1])
    parts = interval_partition(graph, order, Room(4), "circuits")
    state = graph.state(parts, Room(4))
    assert state.costs()[0] == pytest.approx(best_by_trial(graph, 4, "circuits"))


def test_the_variance_of_a_shot_counts_fragments_with_cuts():
    assert shot_variance([]) == shot_variance([0.0]) == 1.0
    assert shot_variance([2.0, 0.0, 4.0, 3.0]) == pytest.approx(9 / 3**0.75)
    edges = [Edge((v, v + 1), (log_of(5),) * 2, (log_of(2), log_of(3))) for v in range(2)]
    graph = CutGraph.of([1, 1, 1, 1], edges)  # the last vertex hangs together with nothing
    costs = graph.state([0, 1, 2, 3], Room(1)).costs()
    assert costs == pytest.approx((5 + 25 + 5 + 1, shot_variance([2, 3 * 2, 3])), rel=1e-5)
    assert graph.state([0, 0, 0, 3], Room(3)).costs() == (2.0, 1.0)


def test_a_state_that_has_moved_is_that_of_its_partition():
    rng = np.random.default_rng(3)
    graph = cut_graph(list(nx.gnm_random_graph(12, 20, seed=1).edges), 3)
    state = graph.state([v % 3 for v in range(12)], Room(5, (5, 5, 5)))
    for _ in range(200):
        group = tuple(int(v) for v in rng.choice(12, 2, replace=False))
        state.move(group, int(rng.integers(3)) if rng.random() < 0.8 else state.empty_part())
    again = graph.state(state.parts, Room(5, (5, 5, 5)))
    assert state.costs() == pytest.approx(again.costs())
    assert state.excess == again.excess


def test_a_hundred_qubits_of_the_papers_model_are_cut_nine_times():
    circuit = real_amplitudes(100, "linear", reps=1)
    plan = CutPlan.build(circuit, AutoCut(10))
    assert (plan.num_cuts, widths(plan)) == (9, [10] * 10)
    assert plan.predicted.circuits == 5 + 8 * 25 + 5


def test_a_price_beyond_all_floats_is_refused():
    circuit = QuantumCircuit(3)
    for number in range(420):
        one, other = ((0, 1), (1, 2), (0, 2))[number % 3]
        circuit.iswap(one, other)
        circuit.ry(0.1 * number, [one, other])
    with pytest.raises(
        CutError,
        match=r"price of inf \(inf circuits.*inf operations to contract.*: allow 3 qubits$",
    ):
        CutPlan.build(circuit, AutoCut(1, wire_cuts=False, seconds=0.5))


def test_a_run_whose_ends_have_unlike_ranks_has_a_price():
    """Control and target see a different number of gates at the angles that are to come."""
    one, other = ParameterVector("t", 2)
    circuit = QuantumCircuit(2)
    circuit.ry(0.4, [0, 1])
    circuit.crx(one, 0, 1)
    circuit.cp(other, 0, 1)
    plan = CutPlan.build(circuit, AutoCut(1))
    assert [cut.rank for cut in plan.cuts] == [(4, 16)]
    assert plan.predicted.flops > 0
    estimator = DistributedEstimator(AutoCut(1), workers=1)
    found = estimator.run([(circuit, "XX", [0.7, -0.3])], precision=0).result()[0].data.evs
    assert abs(float(found) - reference(circuit, "XX", [0.7, -0.3])) < 1e-10


def test_wires_are_cut_where_that_costs_least():
    """A star's hub takes its gates one after the other: a cut of its wire parts the rest."""
    plan = CutPlan.build(pairs(9, [(leaf, 8) for leaf in range(8)]), AutoCut(5))
    assert [cut.kind for cut in plan.cuts] == ["wire"]
    assert widths(plan) == [5, 5]


def test_gates_that_entangle_little_are_cut_first():
    """Of a ring of CX with two weak gates, these are cut, though settings are as many."""
    circuit = pairs(6, [(0, 1), (1, 2), (3, 4), (4, 5)])
    for one, other in ((2, 3), (5, 0)):
        circuit.append(RXXGate(0.1), [one, other])
    plan = CutPlan.build(circuit, AutoCut(3))
    assert [cut.name for cut in plan.cuts] == ["rxx", "rxx"]
    strong = CutPlan.build(pairs(6, [(q, (q + 1) % 6) for q in range(6)]), AutoCut(3))
    assert plan.predicted.circuits == strong.predicted.circuits
    assert plan.predicted.shots < strong.predicted.shots


LATTICE = [(5 * r + c, 5 * r + c + 1) for r in range(4) for c in range(4)] + [
    (5 * r + c, 5 * r + c + 5) for r in range(3) for c in range(5)
]


def test_a_lattice_is_divided_as_well_as_by_hand():
    """4 rows of 5 into halves of two rows: five gates are cut, and nothing better fits."""
    circuit = pairs(20, LATTICE)
    plan = CutPlan.build(circuit, AutoCut(10))
    by_hand = CutPlan.build(circuit, "A" * 10 + "B" * 10)
    assert max(widths(plan)) <= 10
    assert plan.predicted.price <= by_hand.predicted.price
    assert CutPlan.build(circuit, AutoCut(10)).key == plan.key


def test_fragments_fit_devices_of_unlike_width():
    circuit = real_amplitudes(12, "linear", reps=2).assign_parameters(np.linspace(0, 3, 36))
    plan = CutPlan.build(circuit, AutoCut([4, 8]))
    assert widths(plan) == [8, 4]
    assert plan.num_cuts == 2
    with pytest.raises(CutError, match=r"\(4, 7\) .*: 2 fragments hold 11 qubits, .* allow 1 more"):
        CutPlan.build(circuit, AutoCut([4, 7]))


def test_there_are_no_more_fragments_than_allowed():
    circuit = pairs(8, [(leaf, 7) for leaf in range(7)])
    assert CutPlan.build(circuit, AutoCut(6, max_fragments=2)).num_fragments == 2
    with pytest.raises(CutError, match="2 fragments hold 6 qubits, and gates join 8: allow 2 more"):
        CutPlan.build(circuit, AutoCut(3, max_fragments=2, wire_cuts=False))
    with pytest.raises(CutError, match="or more of them, or set `gate_cuts` to True"):
        CutPlan.build(circuit, AutoCut(4, max_fragments=2, gate_cuts=False))
    with pytest.raises(CutError, match="allow 2 qubits, which are enough, or set `gate_cuts`"):
        CutPlan.build(circuit, AutoCut(1, gate_cuts=False))


def test_a_price_that_is_too_high_is_named_as_one_to_allow():
    circuit = pairs(6, [(q, q + 1) for q in range(5)])
    with pytest.raises(CutError, match="above `max_price` 1: raise `max_price` to") as refused:
        CutPlan.build(circuit, AutoCut(3, max_price=1))  # not even the whole circuit is as cheap
    named = float(str(refused.value).rpartition(" ")[2])
    assert CutPlan.build(circuit, AutoCut(3, max_price=named)).predicted.price <= named


def test_only_what_reaches_an_observable_is_cut():
    circuit = entangled(8, 1, layers=1)
    assert CutPlan.build(circuit, AutoCut(4)).num_cuts == 1
    reached = CutPlan.build(circuit, AutoCut(4), observed=[0])
    assert reached.num_cuts == 0
    result = DistributedEstimator(AutoCut(4)).run([(circuit, "I" * 7 + "Z")], precision=0).result()
    assert result[0].metadata["num_cuts"] == 0
    expected = reference(circuit, "I" * 7 + "Z")
    assert float(result[0].data.evs) == pytest.approx(expected, abs=1e-10)


def test_a_circuit_that_is_all_to_all_is_refused_with_the_width_that_would_do():
    edges = [(one, other) for one in range(12) for other in range(one)]
    match = (
        r"price of .*circuits, .*shots.*, above `max_price` 1e\+06: allow 1[012] qubits, or raise"
    )
    with pytest.raises(CutError, match=match):
        CutPlan.build(pairs(12, edges * 2), AutoCut(6, seconds=0.5, max_price=1e6))
    weak = CutPlan.build(pairs(6, [e for e in edges if max(e) < 6], 0.02), AutoCut(3))
    assert max(widths(weak)) <= 3


def test_no_contraction_is_looked_for_where_circuits_and_shots_cost_too_much(monkeypatch):
    edges = [(one, other) for one in range(12) for other in range(one)]
    circuit = pairs(12, edges, 0.02)
    only_gates = AutoCut(3, seconds=0.5, wire_cuts=False, max_price=2e4)
    with pytest.raises(CutError, match=r"operations to contract\), above .*, or raise `max_price`"):
        CutPlan.build(circuit, only_gates)
    monkeypatch.setattr(search, "_MANY", 5)  # four fragments are six pairs
    refusal = r"more than .* circuits, .* uncounted operations to contract\), above .* qubits$"
    with pytest.raises(CutError, match=refusal):
        CutPlan.build(circuit, only_gates)
    plan = CutPlan.build(circuit, "AAABBBCCCDDD")
    full = search.predict(plan.fragments, plan.cuts, most=1e300)
    assert full == plan.predicted
    monkeypatch.delattr(search, "_flops")
    quick = search.predict(plan.fragments, plan.cuts, most=1)
    assert (quick.circuits, quick.width) == (full.circuits, full.width)
    assert quick.least <= full.least < quick.price


@pytest.mark.parametrize(
    "broken",
    [
        "raise SystemExit(1)",
        "import os; os.abort()",
        "import time; time.sleep(60)",
        "print('[')",
        "print('null')",
        "print('[3]')",
        "print('[[0]]')",
    ],
)
def test_a_partitioner_that_fails_is_done_without(broken, monkeypatch, caplog):
    monkeypatch.setattr(partition, "_METIS", broken)
    circuit = real_amplitudes(8, "circular", reps=2)
    with caplog.at_level("INFO"):
        plan = CutPlan.build(circuit, AutoCut(4, seconds=1))
    assert max(widths(plan)) <= 4
    (record,) = (r for r in caplog.records if "searched for without METIS" in r.message)
    # That a short search leaves it no time is to be expected.
    assert record.levelname == ("INFO" if "sleep" in broken else "WARNING")
    assert broken not in caplog.text


def test_a_search_without_time_has_a_plan_all_the_same(monkeypatch):
    monkeypatch.setattr(search.time, "monotonic", iter(range(10**6)).__next__)
    plan = CutPlan.build(
        real_amplitudes(12, "linear", reps=2), AutoCut(6, seconds=0.5, max_price=1e6)
    )
    assert widths(plan) == [6, 6]


def test_plans_are_compared_only_while_there_is_time(monkeypatch):
    compared = []
    found = search._Places._found
    monkeypatch.setattr(search._Places, "_found", lambda *a: compared.append(a) or found(*a))
    circuit = real_amplitudes(12, "circular", reps=2)
    CutPlan.build(circuit, AutoCut(6))
    assert len(compared) > 1
    compared.clear()
    monkeypatch.setattr(search.time, "monotonic", iter(range(0, 10**8, 100)).__next__)
    CutPlan.build(circuit, AutoCut(6))
    assert len(compared) == 1


def test_partitions_come_from_a_process_of_its_own():
    graph = cut_graph([(v, v + 1) for v in range(9)], 0)
    ((parts,),) = partition.metis_partitions([graph], [partition.MetisTry(2, 30, 0)], 30)
    assert set(parts) == {0, 1}
    with pytest.raises(subprocess.TimeoutExpired):
        partition.metis_partitions([graph], [partition.MetisTry(2, 30, 0)], 1e-4)
