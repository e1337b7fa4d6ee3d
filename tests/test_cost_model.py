"""The cost model: laws recovered, intervals that cover, and what it refuses."""

from __future__ import annotations

import gzip
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Done, entangled
from qiskit import QuantumCircuit, qasm2
from record_examples import query_record
from scipy.stats import binom

from distributed_estimator import DistributedEstimator
from distributed_estimator.analysis.costs import (
    CLOCK,
    COSTS,
    TERMS,
    Configuration,
    CostData,
    CostModel,
    Features,
    HeldOut,
    Setup,
    least_configurations,
    load_costs,
    read_costs,
    read_model,
    widest_fragment,
    write_model,
)
from distributed_estimator.cli._forecast import Forecast, features_of
from distributed_estimator.cli._query import read_query
from distributed_estimator.cli.main import main
from distributed_estimator.errors import InputError, RecordError
from distributed_estimator.records import (
    CircuitInfo,
    Header,
    QueryRecord,
    RecordWriter,
    StragglerInfo,
    read_records,
)
from distributed_estimator.reference import ReferenceEstimator

LAW = {
    "partition": {"constant": 5e-5, "qubits": 2e-5},
    "generate": {"constant": 1e-4, "fragments": 5e-5, "queries × qubits": 1e-6},
    "execute": {
        "constant": 1e-4,
        "fragments": 3e-4,
        "shots": 2e-6,
        "subexperiments / workers": 4e-4,
    },
    "reconstruct": {"constant": 1e-4, "queries × circuits": 3e-7, "cuts": 4e-5},
}
CIRCUITS = (1, 10, 35, 60)
GOLDEN = Path(__file__).parent / "golden" / "0.1" / "cost_model.json"


def drawn(rng: np.random.Generator) -> Features:
    """Features such as a batch may have."""
    qubits, cuts, queries = int(rng.integers(4, 11)), int(rng.integers(4)), int(rng.integers(1, 30))
    return Features(
        num_qubits=qubits,
        depth=qubits + 4,
        widest_fragment=-(-qubits // (cuts + 1)),
        num_cuts=cuts,
        num_fragments=cuts + 1,
        num_circuits=CIRCUITS[cuts],
        num_subexperiments=CIRCUITS[cuts] * queries,
        num_queries=queries,
        shots=float(2 ** rng.integers(7, 12)),
        workers=int(rng.choice([1, 2, 4])),
    )


def true_seconds(features: Features) -> list[float]:
    return [sum(w * TERMS[name](features) for name, w in own.items()) for own in LAW.values()]


def record_of(features: Features, stages: list[float], **changes: Any) -> QueryRecord:
    """A record that has these features."""
    circuit = CircuitInfo(features.num_qubits, features.depth, "key")
    seconds = dict(zip((f"t_{name}" for name in COSTS), [*stages, math.fsum(stages)], strict=True))
    counts = ("num_queries", "num_cuts", "num_fragments", "num_circuits", "num_subexperiments")
    fields: dict[str, Any] = {
        "circuit": circuit,
        "partition_label": None,
        "shots": int(features.shots),
        "shots_total": int(features.shots) * features.num_subexperiments,
        "subexp_workers": features.workers,
        "plan_cached": True,
        **{name: getattr(features, name) for name in counts},
        **seconds,
    }
    return query_record(**fields | changes)


def lawful(count: int, seed: int, noise: float = 0.0, repeats: int = 1) -> list[QueryRecord]:
    """Records that follow the law, but for noise that all stages of a record share."""
    rng = np.random.default_rng(seed)
    return [
        record_of(features, [seconds * factor for seconds in true_seconds(features)])
        for features in (drawn(rng) for _ in range(count))
        for factor in np.exp(rng.normal(scale=noise, size=repeats)).tolist()
    ]


SETUP = Setup.of(lawful(1, 0)[0])


# --- The law


def test_a_law_is_recovered_for_configurations_that_were_not_fitted():
    model = CostModel.fit(lawful(60, seed=1))
    errors = []
    for record in lawful(100, seed=2):
        costs = model.predict(SETUP, Features.of(record)).costs
        assert list(costs) == list(COSTS)
        stages = [cost.seconds for name, cost in costs.items() if name != "total"]
        assert costs["total"].seconds == pytest.approx(sum(stages))
        errors.append([cost.seconds for cost in costs.values()])
        errors[-1] = [
            abs(found / getattr(record, f"t_{name}") - 1)
            for name, found in zip(COSTS, errors[-1], strict=True)
        ]
    assert np.median(errors, axis=0) == pytest.approx(0, abs=0.01)
    assert np.max(errors) < 0.1


def test_weights_are_not_negative_and_slow_calls_move_little():
    records = lawful(40, seed=3, noise=0.02, repeats=5)
    for number in range(0, len(records), 5):  # the first call of each configuration, imports say
        slow = records[number]
        records[number] = replace(slow, t_execute=slow.t_execute + 1, t_total=slow.t_total + 1)
    for number in range(5):  # a whole configuration, under load
        records[number] = replace(records[number], t_execute=5.0, t_total=5.0)
    model = CostModel.fit(records)
    (own,) = model.setups
    assert all(weight > 0 for stage in own.weights.values() for weight in stage.values())
    fresh = lawful(50, seed=4)
    validation, _ = model.held_out(fresh)[SETUP]
    assert validation.configurations == 50
    assert max(validation.median_error.values()) < 0.05
    assert own.validation.median_error["total"] < 0.05


def test_setups_are_fitted_on_their_own():
    ours = lawful(20, seed=5)
    slower = [
        replace(
            r,
            pipeline="reference",
            t_execute=100 * r.t_execute,
            t_total=r.t_total + 99 * r.t_execute,
        )
        for r in ours
    ]
    both, alone = CostModel.fit(ours + slower), CostModel.fit(ours)
    assert [own.setup.pipeline for own in both.setups] == ["contracted", "reference"]
    assert both.of(SETUP) == alone.of(SETUP)
    theirs = replace(SETUP, pipeline="reference")
    features = Features.of(ours[0])
    ratio = (
        both.predict(theirs, features).costs["execute"].seconds
        / both.predict(SETUP, features).costs["execute"].seconds
    )
    assert ratio == pytest.approx(100, rel=0.05)
    with pytest.raises(
        InputError, match=r"nothing is known of the cost of reference: .*fitted are"
    ):
        alone.predict(theirs, features)


# --- Intervals


def test_intervals_of_groups_cover_as_the_binomial_allows():
    """The factor alone, for which the coverage is a theorem: between p and p + 1 / (K + 1)."""
    rng, groups, trials, level = np.random.default_rng(7), 19, 500, 0.9
    features = drawn(rng)
    hits = 0
    for _ in range(trials):
        shifts = rng.normal(scale=0.2, size=(groups + 1, 1, 1))
        times = np.exp(shifts + rng.normal(scale=0.1, size=(groups + 1, 3, len(COSTS))))
        configurations = tuple(Configuration(features, own) for own in times[:-1])
        held_out = HeldOut(configurations, np.ones((groups, len(COSTS))))
        hits += abs(math.log(times[-1, 0, -1])) <= math.log(held_out.factors(level)[-1])
    low = binom.ppf(1e-4, trials, level)
    high = binom.ppf(1 - 1e-4, trials, level + 1 / (groups + 1))
    assert low <= hits <= high


@pytest.mark.soak
def test_intervals_of_a_model_cover_what_it_had_not_seen():
    trials = 40
    hits = 0
    for trial in range(trials):
        *fitted, fresh = lawful(21, seed=100 + trial, noise=0.1)
        cost = CostModel.fit(fitted).predict(SETUP, Features.of(fresh)).costs["total"]
        assert cost.low < cost.seconds < cost.high
        hits += cost.low <= fresh.t_total <= cost.high
    assert hits >= binom.ppf(1e-3, trials, 0.9)


def test_more_probable_intervals_are_wider_and_take_more_configurations():
    records = lawful(25, seed=8, noise=0.1)
    factors = [CostModel.fit(records, level=p).of(SETUP).factors["total"] for p in (0.5, 0.9, 0.95)]
    assert 1 < factors[0] < factors[1] <= factors[2]
    assert [least_configurations(p) for p in (0.5, 0.9, 0.95)] == [8, 9, 19]
    with pytest.raises(
        RecordError, match=r"99 different configurations .* the most there are is 25"
    ):
        CostModel.fit(records, level=0.99)
    with pytest.raises(InputError, match="`level` is 1: give a probability"):
        CostModel.fit(records, level=1)


def test_extrapolation_is_said_by_feature():
    model = CostModel.fit(lawful(30, seed=9))
    features = Features.of(lawful(30, seed=9)[0])
    assert model.predict(SETUP, features).extrapolated == ()
    far = replace(features, shots=1e6, workers=64)
    assert model.predict(SETUP, far).extrapolated == (
        "shots is 1e+06, fitted on 128 to 2048",
        "workers is 64, fitted on 1 to 4",
    )


def test_stages_below_the_clock_count_as_its_tick():
    records = [replace(r, t_partition=0.0) for r in lawful(12, seed=15)]
    cost = CostModel.fit(records).predict(SETUP, Features.of(records[0])).costs["partition"]
    assert cost.seconds == pytest.approx(CLOCK)


# --- What it says of its limits


def test_too_few_configurations_name_what_to_record():
    repeated = lawful(3, seed=10, repeats=50)
    message = (
        r"9 different configurations of one setup are needed, and the most there are is 3, of "
        r"contracted: sampled value, statevector, pool threads, eager, plan at hand: record more"
    )
    with pytest.raises(RecordError, match=message):
        CostModel.fit(repeated)
    few = [replace(record, backend="other") for record in repeated]
    model = CostModel.fit(lawful(9, seed=11) + few)
    assert [(few.backend, few.configurations) for few in model.too_few] == [("other", 3)]
    assert "too few configurations, 3, of contracted: sampled value, other" in model.notes()[0]
    with pytest.raises(InputError, match=r"other.* \(3 configurations were too few\)"):
        model.of(replace(SETUP, backend="other"))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"precision": 0.01}, "asked for a precision"),
        ({"straggler": StragglerInfo(p=0.2, delay=0.1)}, "stragglers were injected"),
        ({"straggler": StragglerInfo(slow_worker=1, slow_delay=0.1)}, "stragglers were injected"),
        ({"retries": 1}, "tasks were repeated or missing"),
        ({"missing": 1}, "tasks were repeated or missing"),
        ({"num_queries": 0}, "nothing ran"),
        ({"num_subexperiments": 0}, "nothing ran"),
    ],
)
def test_records_whose_cost_is_of_something_else_are_left_out(changes: dict[str, Any], reason: str):
    records = lawful(9, seed=12)
    odd = replace(records[0], t_execute=100.0, t_total=100.0, **changes)
    model = CostModel.fit([*records, odd, odd])
    assert [(key.partition(":")[0], count) for key, count in model.left_out.items()] == [
        (reason, 2)
    ]
    assert model.setups == CostModel.fit(records).setups
    with pytest.raises(RecordError, match=rf"no query record to fit \(1 left out: {reason}"):
        CostModel.fit([odd])


def test_an_exact_record_asks_for_precision_0_and_is_a_setup_of_its_own():
    exact = [replace(r, shots=None, shots_total=0, precision=0.0) for r in lawful(9, seed=13)]
    (own,) = CostModel.fit(exact).setups
    assert not own.setup.sampled
    assert own.ranges["shots"] == (0, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("t_execute", math.nan),
        ("t_partition", -1.0),
        ("t_total", 0.0),
        ("t_total", math.inf),
        ("t_execute", 1e308),
        ("num_subexperiments", 10**400),
        ("num_circuits", -5),
        ("shots_total", -100),
        ("subexp_workers", -1),
        ("circuit", CircuitInfo(10**400, 5, "key")),
        ("circuit", CircuitInfo(4, -5, "key")),
    ],
)
def test_times_and_counts_that_cannot_be_are_refused(name: str, value: Any):
    records = lawful(20, seed=15)
    records[7] = replace(records[7], **{name: value}, query_id="seven")
    with pytest.raises(
        RecordError, match=rf"`{name}.*` of query seven \(run run\) is .*, expected"
    ):
        CostModel.fit(records)


def test_what_no_number_can_hold_is_refused():
    model = CostModel.fit(lawful(30, seed=17))
    huge = replace(
        drawn(np.random.default_rng(0)), num_circuits=10**400, num_subexperiments=10**400
    )
    with pytest.raises(InputError, match=r"1.00e\+400 circuits have no cost"):
        model.predict(SETUP, huge)
    flat = {stage: {"constant": 1.0} for stage in LAW}  # nor can a range be held against it
    with pytest.raises(InputError, match="no cost that a number can hold"):
        replace(model.setups[0], weights=flat).predict(huge)


@pytest.mark.parametrize(
    ("label", "width"),
    [("AAAB", 3), ("ABAB", 2), ("0,0,0,1", 3), ("10,2,10,3", 2), (None, 2), ("?", 2)],
)
def test_the_widest_fragment_is_read_from_labels(label: str | None, width: int):
    assert widest_fragment(4, label, 2) == width


def test_the_widest_fragment_is_taken_from_records_that_hold_it():
    record = query_record(partition_label="AABA", max_fragment_qubits=2)
    assert Features.of(record).widest_fragment == 2
    assert Features.of(replace(record, max_fragment_qubits=None)).widest_fragment == 3


# --- Files


def test_a_model_file_holds_the_model_and_the_hash_of_its_data(tmp_path: Path):
    records, header = lawful(20, seed=18, noise=0.1), Header.current()
    other = replace(header, machine=replace(header.machine, cpu_count=999))
    records = [replace(record, backend="half \ud800") for record in records]
    model = CostModel.fit([*records, replace(records[0], retries=1)], [header, other, header])
    assert len(model.sources) == 2
    assert model.notes()[-1] == "the records are of 2 machines, which are fitted as one"
    write_model(model, tmp_path / "model.json")
    assert read_model(tmp_path / "model.json") == model
    document = json.loads((tmp_path / "model.json").read_text())
    assert document["schema_version"] == 1
    assert document["sources"][0]["versions"]["python"] == header.versions["python"]
    assert CostData.of(records[::-1]).hash == document["data_hash"]
    assert CostData.of(records[1:]).hash != document["data_hash"]


def test_a_model_file_of_version_0_1_is_read_and_still_what_its_records_give():
    """The file is what version 0.1 wrote for these records."""
    read = read_model(GOLDEN)
    records = lawful(20, seed=18, noise=0.1)
    few = [replace(record, pool="processes") for record in records[:3]]
    fitted = CostModel.fit([*records, *few, replace(records[0], retries=1)])
    (old,), (new,) = read.setups, fitted.setups
    assert (old.setup, old.num_records, old.ranges) == (new.setup, new.num_records, new.ranges)
    assert (read.too_few, read.left_out) == (fitted.too_few, fitted.left_out)
    assert old.factors == pytest.approx(new.factors, rel=1e-6)
    assert old.validation.p90_error == pytest.approx(new.validation.p90_error, rel=1e-6)
    for features in map(Features.of, records):
        found, expected = (each.predict(SETUP, features).costs["total"] for each in (read, fitted))
        assert found.high == pytest.approx(expected.high, rel=1e-6)


def change(*path: str | int, to: Any) -> Callable[[Any], None]:
    def apply(document: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        document[path[-1]] = to

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change("schema_version", to=2), "is 2 and this release reads up to 1: install a newer"),
        (change("schema_version", to="1"), "Expected `int`, got `str` - at .*schema_version"),
        (change("kind", to="query"), "'query' - at .*kind"),
        (change("level", to=10**400), "out of range - at .*level"),
        (change("setups", 0, "weights", "execute", to={"magic": 1.0}), r"terms \['magic'\]"),
        (change("setups", 0, "weights", "execute", to={"shots": -1}), ">= 0.0 - at .*weights"),
        (change("setups", 0, "factors", "total", to=0.5), ">= 1.0 - at .*factors"),
        (change("setups", 0, "factors", to={}), "`factors` has no 'partition', 'generate'"),
        (change("setups", 0, "setup", "sampled", to="yes"), "`bool`, got `str` - at .*sampled"),
        (change("setups", 0, "ranges", "shots", to=[1]), "at .*ranges"),
    ],
)
def test_damaged_model_files_are_refused(
    tmp_path: Path, damage: Callable[[Any], None], message: str
):
    path = tmp_path / "model.json"
    document = json.loads(GOLDEN.read_text("utf-8"))
    damage(document)
    path.write_text(json.dumps(document).replace("Infinity", "1e999"))
    with pytest.raises(RecordError, match=rf"`{path}` .*{message}.*fit"):
        read_model(path)


def test_only_models_are_written_over(tmp_path: Path):
    log, model = write_records(tmp_path / "queries.jsonl", lawful(9, seed=19)), read_model(GOLDEN)
    content = log.read_bytes()
    with pytest.raises(RecordError, match="exists and is no cost model: name another file"):
        write_model(model, log)
    assert log.read_bytes() == content
    for _ in range(2):
        write_model(model, tmp_path / "model.json")
    assert (tmp_path / "model.json").read_bytes() == GOLDEN.read_bytes()


@pytest.mark.parametrize("content", [b"", b"{", b'{"kind": NaN}', b"\xff", b"[" * 10**5])
def test_what_is_no_json_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "model.json").write_bytes(content)
    with pytest.raises(RecordError, match="is no cost model that can be read"):
        read_model(tmp_path / "model.json")


def write_records(path: Path, records: list[QueryRecord]) -> Path:
    with RecordWriter(path) as log:
        for record in records:
            log.write(record)
    return path


def test_costs_come_from_files_and_folders(tmp_path: Path):
    records = lawful(12, seed=20)
    one = write_records(tmp_path / "study" / "runs" / "a" / "queries.jsonl", records[:6])
    two = write_records(tmp_path / "study" / "runs" / "b" / "queries.jsonl", records[6:])
    (tmp_path / "study" / "runs" / "a" / "tasks.jsonl").write_text("not read\n")
    whole = load_costs(tmp_path / "study")
    assert whole == load_costs(two, one)
    assert whole.sources[0]["machine"]["system"] == Header.current().machine.system
    write_model(whole, tmp_path / "model.json")
    assert load_costs(tmp_path / "model.json") == whole
    with pytest.raises(RecordError, match="is a cost model: give it alone"):
        load_costs(tmp_path / "model.json", one)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordError, match=r"holds no record files \(queries.jsonl or "):
        load_costs(tmp_path / "empty")
    with pytest.raises(RecordError, match="does not exist"):
        read_costs(tmp_path / "missing.jsonl")
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(RecordError, match=r"none.jsonl` has no query record"):
        read_costs(tmp_path / "none.jsonl")


def test_a_file_counts_once_however_many_paths_lead_to_it(tmp_path: Path):
    folder = tmp_path / "study" / "run"
    log = write_records(folder / "queries.jsonl", lawful(12, seed=20))
    (folder / "queries.jsonl.gz").write_bytes(gzip.compress(log.read_bytes()))
    queries, headers = read_costs(tmp_path / "study", folder, log, folder / ".." / "run")
    assert (len(queries), len(headers)) == (12, 1)
    log.unlink()
    assert len(read_costs(tmp_path / "study")[0]) == 12


# --- Plans and the command


@pytest.fixture
def dest(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Done]:
    """Runs the command in this process."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Done:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run


@pytest.fixture
def circuit(tmp_path: Path) -> Path:
    made = QuantumCircuit(4)
    for qubit in range(4):
        made.ry(0.3 + qubit, qubit)
    for qubit in range(3):
        made.cx(qubit, qubit + 1)
    path = tmp_path / "chain.qasm"
    path.write_text(qasm2.dumps(made), "utf-8")
    return path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write_records(tmp_path / "run" / "queries.jsonl", lawful(40, seed=21, noise=0.05))


@pytest.mark.parametrize(
    "changes",
    [
        {"label": "AAAA"},
        {"label": "AABB"},
        {"label": "ABCD"},
        {"label": "ABCD", "basis": "minimal"},
        {"label": "ABAB", "observable": ("ZZZZ + 0.5*XXXX",)},
        {"label": "AABC", "observable": ("ZIII",)},  # fragments that nothing is measured of
        {"label": "AABB", "observable": ("IIIZ",)},  # one that cannot reach the observable
        {"label": "AABB", "shots": None, "exact": True},
        {"max_qubits": 2},
        {"label": "ABAA"},  # three fragments, two of them with one label
        {},
    ],
)
def test_a_plan_has_the_features_that_its_record_then_has(
    tmp_path: Path, circuit: Path, changes: dict[str, Any]
):
    asked: dict[str, Any] = {"shots": 64, "exact": False, "basis": "full", "parameters": ()}
    asked |= dict.fromkeys(("observable", "label", "max_qubits", "precision"))
    asked |= {"seed": 7, "workers": 2}
    query = read_query(file=circuit, **asked | changes)
    planned = features_of(Forecast.of(query))
    with DistributedEstimator(
        cuts=query.settings.cuts,
        workers=2,
        options=query.settings.options,
        log=tmp_path / "queries.jsonl",
    ) as estimator:
        estimator.run([(query.circuit, query.observables[0], [])]).result()
    _, record = read_records(tmp_path / "queries.jsonl")
    assert isinstance(record, QueryRecord)
    assert asdict(planned) == asdict(Features.of(record))


def test_plan_says_what_a_query_costs(dest: Callable[..., Done], circuit: Path, log: Path):
    asked = ("plan", circuit, "--label", "AABB", "--workers", 2, "--costs", log.parent)
    document = dest(*asked, "--shots", 256, "--json").document
    (costs,) = document["costs"]
    assert document["num_circuits"] == costs["features"]["num_circuits"] == 10
    assert costs["setup"]["plan_cached"] is True
    assert set(costs["costs"]) == set(COSTS)
    for cost in costs["costs"].values():
        assert 0 < cost["low"] < cost["seconds"] < cost["high"]
    assert costs["extrapolated"] == ["depth is 4, fitted on 8 to 14"]
    done = dest(*asked, "--shots", 10**6)
    assert done.code == 0
    assert "Predicted cost, contracted: sampled value, statevector" in done.out
    assert "90 % from" in done.out
    assert "extrapolated" in done.err
    assert "shots is 1e+06, fitted on 128 to 2048" in done.err
    assert "costs" not in dest("plan", circuit, "--json").document


def test_costs_fits_validates_and_predicts(
    dest: Callable[..., Done], circuit: Path, log: Path, tmp_path: Path
):
    model = tmp_path / "model.json"
    done = dest("costs", "--costs", log, "--fit", model, "--validate")
    assert done.code == 0, done.err
    assert "Errors, each of 40 configurations held out" in done.out
    query = (circuit, "--label", "AABB", "--shots", 256, "--workers", 2, "--json")
    fitted, read = (dest("costs", *query, "--costs", path).document for path in (log, model))
    assert fitted == read
    assert fitted["validation"][0]["median_error"]["total"] < 0.15
    (planned,) = dest("plan", *query, "--costs", model).document["costs"]
    assert fitted["predictions"] == [planned]
    wider = dest("costs", *query, "--costs", log, "--level", 0.95).document
    assert wider["level"] == 0.95
    assert wider["predictions"][0]["costs"]["total"]["high"] > planned["costs"]["total"]["high"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["costs"], "Missing option '--costs'"),
        (["costs", "--costs", "LOG"], "give a FILE with a circuit to predict its cost, `--fit"),
        (["costs", "--costs", "LOG", "--validate", "--shots", 5], "give a FILE with a circuit"),
        (["costs", "--costs", "LOG", "--validate", "--seed", 5], "leave out the options of a qu"),
        (["plan", "CIRCUIT", "--exact", "--costs", "LOG"], "nothing is known of the cost of exact"),
        (["plan", "CIRCUIT", "--exact", "--costs", "missing"], "`missing` does not exist"),
        (["costs", "--costs", "CIRCUIT", "--validate"], "line 1 is unreadable"),
        (["costs", "--costs", "LOG", "--validate", "--level", 2], "`--level` is 2.0: give a"),
        (
            ["costs", "--costs", "LOG", "--validate", "--level", 0.99],
            "99 different configurations",
        ),
        (["costs", "--costs", "LOG", "--fit", "no/model.json"], "cannot write `no/model.json`"),
        (
            ["costs", "--costs", GOLDEN, "--validate", "--level", 0.5],
            "was fitted for 0.9: give the records",
        ),
    ],
)
def test_what_cannot_be_predicted_ends_in_one_line(
    dest: Callable[..., Done], circuit: Path, log: Path, arguments: list[Any], message: str
):
    paths = {"LOG": log, "CIRCUIT": circuit}
    done = dest(*(paths.get(argument, argument) for argument in arguments))
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("dest: ")
    assert done.err.count("\n") == 1
    assert message in done.err


def test_names_in_records_do_not_steer_the_terminal(
    dest: Callable[..., Done], circuit: Path, tmp_path: Path
):
    records = [replace(record, backend="\x1b[31mred") for record in lawful(40, seed=23)]
    few = [replace(record, pool="\x1b]0;title\x07") for record in lawful(2, seed=24)]
    log = write_records(tmp_path / "log.jsonl", [*records, *few])
    query = (circuit, "--label", "AABB", "--shots", 256, "--costs", log)
    for done in (dest("plan", *query), dest("costs", *query, "--validate")):
        assert done.code == 0
        assert "red" in done.out
        assert "\x1b" not in done.out + done.err
        assert "\x07" not in done.out + done.err


# --- The page and the benchmark


def test_the_example_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = (Path(__file__).parent.parent / "docs" / "cost-model.md").read_text("utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    write_records(tmp_path / "runs" / "study" / "runs" / "a" / "queries.jsonl", lawful(9, seed=22))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(example, "cost-model.md", "exec"), names)
    assert names["prediction"].extrapolated == ()


def test_what_is_simulated_on_other_numbers_of_threads_has_a_setup_of_its_own(tmp_path: Path):
    for name, options in {
        "one": {},
        "two": {"simulator_threads": 2},
        "all": {"simulator_threads": None},
        "deferred": {"defer_measurements": True},
    }.items():
        log = tmp_path / name / "queries.jsonl"
        estimator = ReferenceEstimator("AB", shots=8, workers=1, seed=1, log=log, **options)
        estimator.run([(entangled(2, 1), "ZZ")]).result()
    records, _ = read_costs(tmp_path)
    assert len(records) == len({Setup.of(record) for record in records}) == 4


@pytest.mark.soak
def test_a_smoke_run_of_the_benchmark_holds_every_setup_and_stage():
    command = [sys.executable, "-m", "benchmarks.cost_model", "--quick", "--json"]
    done = subprocess.run(
        command,
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["benchmark"] == "cost_model"
    titles = [figure["name"] for figure in document["figures"]]
    assert len(set(titles)) == len(titles) == 2 * 2 * (len(COSTS) + 1) + 2
    for backend in ("statevector", "qiskit_aer.SamplerV2"):
        assert sum(title.startswith(f"{backend}, plan at hand, ") for title in titles) == 6
        assert f"{backend}, plan at hand: every other query's total against the others'" in titles
    assert all(figure["case"] == {"configurations": 14} for figure in document["figures"])
    assert all(0 <= figure["value"] < math.inf for figure in document["figures"])


@pytest.mark.parametrize("allocation", ["optimal", "neyman"])
def test_features_of_a_hub_whose_settings_are_drawn(tmp_path: Path, allocation: str):
    """Only `optimal` draws them; for the other rules every one would run, and is not simulated."""
    hub = QuantumCircuit(9)
    hub.h(range(9))
    hub.cz(0, range(1, 9))
    path = tmp_path / "hub.qasm"
    path.write_text(qasm2.dumps(hub), "utf-8")
    asked: dict[str, Any] = dict.fromkeys(("shots", "observable", "max_qubits", "exact"))
    asked |= {"label": "ABCDEFGHI", "precision": 0.2, "allocation": allocation, "parameters": ()}
    query = read_query(file=path, **asked)
    forecast = Forecast.of(query)
    if allocation == "optimal":
        features = features_of(forecast)
        assert forecast.price is not None
        assert features.num_subexperiments == forecast.price.circuits < forecast.num_circuits
        assert features.shots >= 1
    else:
        with pytest.raises(InputError, match="what a precision takes is not known"):
            features_of(forecast)
