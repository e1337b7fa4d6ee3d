"""What estimators and results show of themselves."""

from __future__ import annotations

import logging
import math
import pickle
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.primitives import PrimitiveResult, PubResult, StatevectorSampler

from distributed_estimator import (
    AutoCut,
    CutPlan,
    DistributedEstimator,
    EstimatorOptions,
    Mitigation,
    Policy,
    Zne,
)
from distributed_estimator.errors import CutError
from distributed_estimator.execution import Deadline, LongestFirst
from distributed_estimator.execution.pools import ThreadPool


def chain(angle: float = 0.4) -> QuantumCircuit:
    circuit = QuantumCircuit(4)
    circuit.ry(angle, range(4))
    for qubit in range(3):
        circuit.cx(qubit, qubit + 1)
    return circuit


def facts(shown: Any) -> dict[str, str]:
    """What a notebook shows, which has to be well-formed, and what the text says, too."""
    title, table = ElementTree.fromstring(f"<div>{shown._repr_html_()}</div>")
    assert title.text == type(shown).__name__ == str(shown).splitlines()[0]
    assert re.fullmatch(rf"<{title.text}: .+>", repr(shown))  # in one line
    assert " at 0x" not in repr(shown)
    found = {row[0].text or "": row[1].text or "" for row in table}
    lines = [line.split("  ", 1) for line in str(shown).replace("\n  ", "\n").splitlines()[1:]]
    assert [(name.strip(), fact.strip()) for name, fact in lines] == [
        (name.strip(), fact) for name, fact in found.items()
    ]
    return {name.strip(): fact for name, fact in found.items()}


def estimator(cuts: Any = "AABB", **options: Any) -> DistributedEstimator:
    return DistributedEstimator(cuts, options=EstimatorOptions(seed=5, **options))


def test_a_result_shows_values_errors_and_what_they_took():
    own, circuit = estimator(), chain()
    pubs = [(circuit, ["ZZZZ", "XXII"]), (circuit, "ZIIZ"), (chain(0.3), "ZZZZ")]
    result = own.run(pubs, precision=0.02).result()
    found = facts(result)
    assert list(found)[:4] == ["PUB 0 [0]", "PUB 0 [1]", "PUB 1", "PUB 2"]
    for name, pub, index in (("PUB 0 [1]", 0, 1), ("PUB 2", 2, ())):
        value, stderr = map(float, found[name].split(" ± "))
        assert abs(value - result[pub].data.evs[index]) <= 0.05 * stderr
        assert stderr == pytest.approx(result[pub].data.stds[index], rel=0.05)
    largest = max(pub.data.stds.max() for pub in result)
    assert found["precision"] == f"0.02 met: largest standard error {largest:.2g}"
    # The first two PUBs were evaluated together: what that took counts once.
    shots = result[0].metadata["shots_total"] + result[2].metadata["shots_total"]
    assert found["shots"] == str(shots)
    assert facts(own)["so far"] == f"1 run, {shots} shots"
    assert found["cuts"] == "1, 2 fragments of at most 2 qubits"
    assert [part.split()[0] for part in found["time"].split(": ")[1].split(", ")] == [
        *("partition", "generate", "execute", "reconstruct")
    ]
    assert next(iter(facts(result[1]))) == "value"
    assert facts(result[1])["shots"] == str(result[0].metadata["shots_total"])


def test_results_are_qiskits_and_survive_pickling():
    result = estimator(shots=20).run([(chain(), ["ZZZZ", "XXII"])]).result()
    copy = pickle.loads(pickle.dumps(result))
    for each in (result, copy):
        assert isinstance(each, PrimitiveResult)
        assert isinstance(each[0], PubResult)
    np.testing.assert_array_equal(copy[0].data.evs, result[0].data.evs)
    assert str(copy) == str(result)


@pytest.mark.parametrize(
    ("options", "precision", "expected"),
    [
        ({"max_shots": 500}, 1e-3, "0.001 not met: largest"),
        ({"error_norm": "rms"}, 0.1, "0.1 met: root mean square"),
        ({"shots": 50}, None, "shots were set; largest"),
        ({"shots": 1}, None, "shots were set; largest"),
        ({}, 0, "exact"),
    ],
)
@pytest.mark.filterwarnings("ignore::distributed_estimator.errors.PrecisionWarning")
def test_a_result_says_whether_its_precision_was_met(
    options: dict[str, Any], precision: float | None, expected: str
):
    result = estimator(**options).run([(chain(), ["ZZZZ", "XXII"])], precision=precision).result()
    assert facts(result)["precision"].startswith(expected)
    assert math.isfinite(result[0].data.stds[0])


def test_long_results_are_cut_and_empty_ones_shown():
    result = estimator().run([(chain(), ["ZZZZ"] * 40)], precision=0).result()
    assert facts(result)["…"] == "28 more values"
    assert len(str(result).splitlines()) < 25
    assert "; 40 values; precision exact; shots 0;" in repr(result)
    assert facts(estimator().run([]).result())["shots"] == "0"


def test_results_that_others_put_together_show_their_values():
    """Programs that mitigate errors make results of their own from ours, and drop the metadata."""
    result = estimator().run([(chain(), ["ZZZZ"] * 20)], precision=0).result()
    own = type(result[0])(result[0].data, metadata={})
    both = type(result)([result[0], PubResult(own.data)])
    assert list(facts(own).items()) == list(facts(result[0]).items())[:13]
    assert facts(both)["…"] == "28 more values"
    assert "shots" not in facts(both)


def test_a_job_says_in_one_line_what_it_runs_and_how_far_it_is():
    job = estimator().run([(chain(), "ZZZZ"), (chain(), "XXXX")], precision=0)
    job.result()
    assert facts(job) == {"PUBs": "2", "status": "DONE", "id": job.job_id()}
    failed = estimator("AB").run([(chain(), "ZZZZ")])  # labels for another circuit
    with pytest.raises(CutError):
        failed.result()
    assert repr(failed) == f"<EstimatorJob: PUBs 1; status ERROR; id {failed.job_id()}>"


def test_options_show_what_was_changed():
    policy = Policy(order=LongestFirst(), deadline=Deadline(30.0))
    options = EstimatorOptions(seed=1, policy=policy, mitigation=Mitigation(zne=Zne()))
    for value, text in (
        (EstimatorOptions(), "EstimatorOptions()"),
        (policy, "Policy(order=LongestFirst(), deadline=Deadline(seconds=30.0))"),
        (Mitigation(readout=True), "Mitigation(readout=True)"),
        (AutoCut(3), "AutoCut(max_qubits=3)"),
        (options, f"EstimatorOptions(seed=1, policy={policy}, mitigation=Mitigation(zne=Zne()))"),
    ):
        assert repr(value) == text
        assert eval(text) == value


def test_parts_of_a_plan_and_pools_say_what_they_are_in_one_line():
    plan = CutPlan.build(chain(), "AABB")
    assert repr(plan.fragments[1]) == "<Fragment 1: qubits [2, 3], 3 operations, 1 slot>"
    assert repr(plan.fragments[1].slots[0]) == "<Slot 0: qubit 0, gate, rank 4>"
    cut = "<Cut: cx on qubits 1 and 2, instruction 5, between fragments 0 and 1>"
    assert repr(plan.cuts[0]) == cut
    pool = ThreadPool(3)
    assert repr(pool) == "<ThreadPool: 3 workers>"
    pool.close()


def test_an_estimator_shows_its_cuts_and_the_options_that_were_changed(tmp_path: Path):
    policy = Policy(deadline=Deadline(30.0))
    own = DistributedEstimator(
        AutoCut(max_qubits=2, seed=3),
        workers=1,
        options=EstimatorOptions(seed=1, shots=10, policy=policy),
        log=tmp_path / "<log>.jsonl",
    )
    assert facts(own) == {
        "cuts": "AutoCut(max_qubits=2, seed=3)",
        "backend": "statevector",
        "pool": "threads, 1 worker",
        "options": "shots=10, seed=1, policy=Policy(deadline=Deadline(seconds=30.0))",
        "log": str(tmp_path / "<log>.jsonl"),
        "so far": "0 runs, 0 shots",
    }
    own.close()
    assert facts(own)["so far"].endswith("; closed")
    plan = CutPlan.build(chain(), "AABB")
    assert facts(DistributedEstimator(plan))["cuts"] == repr(plan)
    assert facts(DistributedEstimator(plan))["options"] == "defaults"


def test_probabilities_show_the_likeliest_outcomes_as_qiskit_writes_them():
    circuit = QuantumCircuit(6)
    circuit.x([1, 5])
    circuit.ry(1.0, [0, 2, 3, 4])
    found = estimator("AAABBB").probabilities(circuit, [5, 0], precision=0.02)
    value, stderr = map(float, facts(found).pop("01").split(" ± "))  # qubit 5 is on the right
    assert abs(value - np.cos(0.5) ** 2) <= 5 * stderr <= 0.1
    assert facts(found)["qubits"] == "0, 5"
    shown = facts(estimator("AAABBB").probabilities(circuit, range(6), precision=0))
    assert shown["…"] == "48 less likely outcomes"
    assert all(name[0] == "1" and name[4] == "1" for name in list(shown)[1:-1])


def test_probabilities_of_several_bindings_show_their_shape():
    circuit = QuantumCircuit(2)
    circuit.ry(Parameter("a"), [0, 1])
    found = estimator("AB").probabilities(circuit, [0, 1], [[0.1], [0.2], [0.3]], precision=0)
    assert facts(found)["values"] == "an array of shape (3, 4)"


def test_stages_and_jobs_are_logged_in_single_lines(caplog: pytest.LogCaptureFixture):
    own = DistributedEstimator("AABB", StatevectorSampler(seed=1), workers=1)
    with caplog.at_level(logging.INFO, "distributed_estimator"):
        own.run([(chain(), "ZZZZ")], precision=0.1).result()
    assert not caplog.messages
    with caplog.at_level(logging.DEBUG, "distributed_estimator"):
        result = own.run([(chain(), "ZZZZ")], precision=0.1).result()
    lines, query = caplog.messages, result[0].metadata["query_id"]
    assert not any("\n" in line for line in lines)
    assert lines[0].startswith(f"query {query}: known plan <CutPlan: 4 qubits in 2 fragments")
    sent = [line for line in lines if re.fullmatch(r"job \d+ sent: \d+ tasks, first", line)]
    back = [line for line in lines if re.match(r"job \d+ back from worker 0 after .*, 0 f", line)]
    assert 2 <= len(sent) == len(back)
    assert sum(line.endswith("round 0 has 2 tasks") for line in lines) == 1
    shots = result[0].metadata["shots_total"]
    assert lines[-1].startswith(f"query {query}: 1 queries, {shots} shots; partition ")
