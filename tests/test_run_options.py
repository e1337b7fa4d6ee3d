"""Options for pools, policies, stragglers and records of tasks: what they come to."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from qiskit import QuantumCircuit, qasm2

from distributed_estimator.analysis.load import load_queries
from distributed_estimator.backends.statevector import StatevectorBackend
from distributed_estimator.cli._options import policy_options, straggler_options, take, take_policy
from distributed_estimator.cli.main import main
from distributed_estimator.cli.train import build_config
from distributed_estimator.cli.train import train as train_command
from distributed_estimator.errors import BackendError, CheckpointError, InputError
from distributed_estimator.estimator import EstimatorJob
from distributed_estimator.execution import (
    Batches,
    ByLabel,
    Constant,
    Deadline,
    LargestInfluenceFirst,
    LogNormal,
    LongestFirst,
    Pareto,
    Policy,
    Retry,
    SlowWorker,
    Speculation,
    Stragglers,
)
from distributed_estimator.records import QueryRecord, RecordWriter, TaskRecord, read_records
from distributed_estimator.training import loop
from distributed_estimator.training.checkpoints import RunState
from distributed_estimator.training.config import TrainingConfig
from distributed_estimator.training.policies import StragglerSettings
from distributed_estimator.training.runs import RunFolder
from distributed_estimator.training.trained import TrainedNetwork
from distributed_estimator.training.workloads import WorkloadConfig, load_workload


def parsed(*arguments: str) -> dict[str, Any]:
    """The options of a command that has all of them and one of its own."""

    @click.command()
    @policy_options({"size": "--batch-size"})
    @straggler_options
    @click.option("--own")
    def command(**options: Any) -> dict[str, Any]:
        return options

    options: dict[str, Any] = command.main(list(arguments), standalone_mode=False)
    return options


def policy(*arguments: str) -> Policy:
    return take_policy(parsed(*arguments)).policy


def stragglers(*arguments: str) -> Stragglers | None:
    return take(StragglerSettings, parsed(*arguments)).stragglers


# --- what options come to


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--policy eager", Policy()),
        ("--policy batches --tasks-per-batch 8", Policy(Batches(8))),
        ("--policy batches --batch-size 8 --batch-delay 0.5", Policy(Batches(8, 0.5))),
        ("--order fifo", Policy()),
        ("--order label", Policy(order=ByLabel())),
        ("--order longest", Policy(order=LongestFirst())),
        ("--order influence", Policy(order=LargestInfluenceFirst())),
        ("--in-flight 3", Policy(in_flight=3)),
        ("--speculate", Policy(speculation=Speculation())),
        ("--speculate --no-speculate", Policy()),
        (
            "--speculate --quantile 0.9 --factor 2 --budget 0.1 --restart",
            Policy(speculation=Speculation(0.9, 2.0, 0.1, restart=True)),
        ),
        ("--speculate --budget 0", Policy(speculation=Speculation(budget=0.0))),
        ("--deadline 2.5", Policy(deadline=Deadline(2.5))),
        ("--attempts 5", Policy(retry=Retry(attempts=5))),
        ("--timeout 30", Policy(retry=Retry(timeout=30.0))),
        ("--subexperiments-per-task 1", Policy(subexperiments=1)),
    ],
)
def test_policies(arguments: str, expected: Policy):
    assert policy(*arguments.split()) == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--straggler-p 0.1 --straggler-delay 2", Stragglers(0.1, Constant(2.0))),
        ("--straggler-p 0 --straggler-delay 2", Stragglers(0.0, Constant(2.0))),
        (
            "--straggler-p 1 --straggler-delay 2 --straggler-distribution constant",
            Stragglers(1.0, Constant(2.0)),
        ),
        (
            "--straggler-p 0.1 --straggler-delay 2 --straggler-distribution pareto "
            "--straggler-shape 1.5",
            Stragglers(0.1, Pareto(scale=2.0, shape=1.5)),
        ),
        (
            "--straggler-p 0.1 --straggler-delay 2 --straggler-distribution lognormal "
            "--straggler-shape 1.5",
            Stragglers(0.1, LogNormal(median=2.0, sigma=1.5)),
        ),
        ("--slow-worker 0.5", Stragglers(0.0, Constant(0.0), SlowWorker(0, 0.5))),
        (
            "--straggler-p 0.1 --straggler-delay 2 --slow-worker 0.5",
            Stragglers(0.1, Constant(2.0), SlowWorker(0, 0.5)),
        ),
    ],
)
def test_stragglers(arguments: str, expected: Stragglers):
    assert stragglers(*arguments.split()) == expected


# --- what does not go together

LATE = "--straggler-p 0.1 --straggler-delay 2"


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The one line in which `dest estimate` refuses its options; the file is not looked for."""

    def run(arguments: str) -> str:
        assert main(["estimate", "nofile.qasm", *arguments.split()]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        return captured.err.removeprefix("dest: ").rstrip()

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--address tcp://a:1", "`--address` names a cluster, and `--pool` is threads: give dask"),
        ("--pool processes --address tcp://a:1", "`--pool` is processes"),
        ("--tasks-per-batch 8", "`--tasks-per-batch` belongs to `--policy` batches: add that"),
        ("--batch-delay 0", "`--batch-delay` belongs to `--policy` batches"),
        ("--policy eager --batch-delay 1", "`--batch-delay` belongs to `--policy` batches"),
        ("--policy batches", "`--policy` is batches, of no size: add `--tasks-per-batch`"),
        ("--policy batches --batch-delay 1", "of no size"),
        ("--quantile 0.9", "`--quantile` belongs to `--speculate`: add that"),
        ("--budget 0", "`--budget` belongs to `--speculate`"),
        ("--no-speculate --restart", "`--restart` belongs to `--speculate`"),
        ("--straggler-p 0.1", "`--straggler-p` needs a delay: add `--straggler-delay`"),
        ("--straggler-delay 2", "`--straggler-delay` belongs to `--straggler-p`: add that"),
        ("--straggler-shape 2", "`--straggler-shape` belongs to `--straggler-p`"),
        (
            f"{LATE} --straggler-shape 2",
            "`--straggler-shape` belongs to `--straggler-distribution` pareto or lognormal: add",
        ),
        (
            f"{LATE} --straggler-distribution pareto",
            "`--straggler-distribution` is pareto, which needs a shape: add `--straggler-shape`",
        ),
        *(
            (arguments, "")
            for arguments in (
                *("--pool moon", "--policy sometimes", "--order random", "--in-flight 0"),
                *("--policy batches --tasks-per-batch 0", "--policy batches --batch-delay -1"),
                *("--speculate --quantile 0", "--speculate --quantile 1", "--speculate --factor 0"),
                *("--speculate --budget -1", "--deadline 0", "--attempts 0", "--timeout 0"),
                *("--subexperiments-per-task 0", "--straggler-p 1.5", "--straggler-p -0.1"),
                *("--straggler-delay 0", "--straggler-distribution x", "--straggler-shape 0"),
                *("--slow-worker -1", "--deadline soon", "--deadline nan", "--deadline 1e308"),
                *("--timeout inf", "--slow-worker nan", "--speculate --factor inf"),
                *("--speculate --quantile nan", "--speculate --budget nan", "--straggler-p nan"),
                *("--straggler-delay inf", "--policy batches --batch-delay nan"),
                "--straggler-shape nan",
            )
        ),
    ],
)
def test_what_does_not_go_together_or_is_out_of_range(
    refused: Callable[..., str], arguments: str, message: str
):
    error = refused(arguments)
    assert message in error
    assert arguments.split()[-2] in error or message
    assert "give" in error or "add" in error or "is not one of" in error


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Speculation(quantile="a"), "`quantile` is 'a': give a number between 0 and 1"),
        (lambda: Speculation(factor=None), "`factor` is None: give a number of at least 1"),
        (lambda: Speculation(factor=10**400), "`factor` is 1000"),
        (lambda: Speculation(budget="a"), "`budget` is 'a': give a fraction"),
        (lambda: Speculation(budget=1e308), "`budget` is 1e\\+308: .* and at most 1e\\+06"),
        (lambda: Speculation(restart="no"), "`restart` is 'no': give True or False"),
        (lambda: Batches(1, 1e308), "`delay` is 1e\\+308: .* at least 0 and at most 1e\\+09"),
        (lambda: Deadline(1e10), "`seconds` is 1.*: give a positive number of seconds and at most"),
        (lambda: Retry(timeout="a"), "`timeout` is 'a'"),
        (lambda: Retry(backoff=10**400), "`backoff` is 1000"),
    ],
)
def test_what_no_policy_is_made_of(make: Callable[[], object], message: str):
    with pytest.raises(InputError, match=message):
        make()


# --- pools by their classes


def test_engines_are_imported_by_processes_of_their_own():
    code = """
import sys
from distributed_estimator.execution.pools import DaskPool, RayPool
DaskPool(1), RayPool(1)
print("distributed" in sys.modules, "dask" in sys.modules, "ray" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False False\n"


# --- dest train


def trained_with(*arguments: str) -> TrainingConfig:
    options = train_command.make_context("train", ["iris", *arguments]).params
    own = ("workload", "out", "resume", "track", "figure", "as_json")
    return build_config("iris", {name: value for name, value in options.items() if name not in own})


def test_training_takes_them_too():
    config = trained_with(
        *("--pool", "dask", "--address", "tcp://a:1", "--trace", "--batch-size", "16"),
        *("--policy", "batches", "--tasks-per-batch", "8", "--straggler-p", "0.1"),
        *("--straggler-delay", "2"),
    )
    assert (config.pool, config.address, config.trace) == ("dask", "tcp://a:1", True)
    assert config.policy == Policy(Batches(8))
    assert config.stragglers == Stragglers(0.1, Constant(2.0))
    assert config.batch_size == 16


SPECIAL = TrainingConfig(
    pool="ray",
    address="ray://10.0.0.1:10001",
    policy=Policy(
        Batches(8, 0.5),
        LongestFirst(),
        in_flight=3,
        speculation=Speculation(0.9, restart=True),
        deadline=Deadline(60),
        retry=Retry(5, timeout=30.0),
        subexperiments=2,
    ),
    stragglers=Stragglers(0.1, LogNormal(2.0, 1.5), SlowWorker(0, 0.5)),
    trace=True,
)


@pytest.mark.parametrize(
    "config",
    [
        SPECIAL,
        TrainingConfig(),
        replace(SPECIAL, policy=Policy(order=ByLabel()), stragglers=Stragglers(0, Constant(1))),
        replace(SPECIAL, stragglers=Stragglers(0.5, Pareto(1.0, 2.0))),
    ],
)
def test_a_configuration_goes_through_json(config: TrainingConfig):
    assert TrainingConfig.from_dict(json.loads(json.dumps(config.as_dict()))) == config


def test_a_configuration_of_an_older_release_is_read():
    document = TrainingConfig(cuts=1).as_dict()
    for name in ("pool", "address", "policy", "stragglers", "trace"):
        del document[name]
    assert TrainingConfig.from_dict(document) == TrainingConfig(cuts=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flavour": 1}, "`flavour` is no known key"),
        ({"policy": {"flavour": 1}}, "`policy.flavour` is no known key"),
        ({"policy": None}, "`policy` is None: give a mapping"),
        (
            {"policy": {"dispatch": {"kind": "Sometimes"}}},
            "needs `kind`: give `Eager` or `Batches`",
        ),
        ({"policy": {"dispatch": {"size": 8}}}, "`policy.dispatch` needs `kind`"),
        ({"policy": {"order": 7}}, "`policy.order` is 7: give a mapping"),
        ({"policy": {"dispatch": {"kind": "Batches"}}}, "`policy.dispatch.size` is missing"),
        ({"policy": {"in_flight": 0}}, "`in_flight` is 0"),
        ({"stragglers": {"p": 2, "delay": {"kind": "Constant", "seconds": 1}}}, "`p` is 2"),
        ({"pool": "moon"}, "`pool` is 'moon': give one of threads, processes, dask, ray"),
    ],
)
def test_a_configuration_that_is_none_is_refused(change: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        TrainingConfig.from_dict({**TrainingConfig().as_dict(), **change})


@pytest.mark.parametrize(
    "change",
    [
        {"pool": "processes"},
        {"address": "tcp://a:1"},
        {"policy": Policy(order=LongestFirst())},
        {"trace": True},
    ],
)
def test_the_reference_pipeline_takes_workers_and_stragglers_only(change: dict[str, Any]):
    (name,) = change
    with pytest.raises(InputError, match=rf"`{name}` .* takes `workers` and `stragglers` only"):
        TrainingConfig(pipeline="reference", workers=2, **change)


def test_an_evaluation_is_not_disturbed():
    quiet = SPECIAL.for_evaluation()
    assert quiet == replace(SPECIAL, policy=Policy(subexperiments=2), stragglers=None, trace=False)


# --- dest estimate, from end to end


@pytest.fixture
def dest(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Runs the command in a folder that holds one circuit."""
    circuit = QuantumCircuit(4)
    for qubit in range(4):
        circuit.ry(0.3 + qubit, qubit)
    for qubit in range(3):
        circuit.cx(qubit, qubit + 1)
    monkeypatch.chdir(tmp_path)
    Path("chain.qasm").write_text(qasm2.dumps(circuit), "utf-8")

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


ESTIMATE = ("estimate", "chain.qasm", "--label", "AABB", "--shots", 100, "--workers", 2)


def document_of(done: tuple[int, str, str]) -> Any:
    code, out, err = done
    assert code == 0, err
    return json.loads(out)


def test_values_do_not_depend_on_pool_policy_and_stragglers(dest: Callable[..., Any]):
    plain = document_of(dest(*ESTIMATE, "--json"))
    for options in (
        ("--pool", "processes"),
        ("--policy", "batches", "--batch-size", 1, "--order", "longest", "--in-flight", 1),
        ("--straggler-p", 0.5, "--straggler-delay", 0.002, "--slow-worker", 0.001, "--speculate"),
    ):
        other = document_of(dest(*ESTIMATE, *options, "--json"))
        assert (other["value"], other["stderr"]) == (plain["value"], plain["stderr"])


def test_a_trace_is_written(dest: Callable[..., Any]):
    document = document_of(
        dest(
            *(*ESTIMATE, "--subexperiments-per-task", 1, "--trace", "out/here", "--json"),
            *("--straggler-p", 1, "--straggler-delay", 0.001),
        )
    )
    assert document["files"] == {
        "tasks": "out/here/tasks.jsonl",
        "queries": "out/here/queries.jsonl",
        "trace": "out/here/trace.json",
    }
    record = document["record"]
    assert record["policy"] == "eager, subexperiments=1"
    assert record["straggler"]["injected"] == record["num_subexperiments"]
    tasks = [r for r in read_records("out/here/tasks.jsonl") if isinstance(r, TaskRecord)]
    assert len(tasks) == record["num_subexperiments"]
    assert {task.query_id for task in tasks} == {record["query_id"]}
    trace = json.loads(Path("out/here/trace.json").read_text("ascii"))
    cats = [event.get("cat") for event in trace["traceEvents"] if event["ph"] == "X"]
    assert cats.count("task") == cats.count("injected") == len(tasks)
    (query,) = (event for event in trace["traceEvents"] if event.get("cat") == "query")
    assert query["dur"] == pytest.approx(1e6 * record["t_total"], abs=1)
    assert query["args"]["t_reconstruct"] == record["t_reconstruct"]


def test_a_run_that_fails_is_drawn_and_may_be_repeated(
    dest: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    command = (*ESTIMATE, "--subexperiments-per-task", 1, "--trace", "out", "--json")
    plain = document_of(dest(*ESTIMATE, "--subexperiments-per-task", 1, "--json"))
    run, begun = StatevectorBackend.run, []

    def failing(self: Any, experiment: Any, task: Any) -> Any:
        begun.append(task)
        if len(begun) > 3:
            raise BackendError("the simulator broke")
        return run(self, experiment, task)

    with monkeypatch.context() as patch:
        patch.setattr(StatevectorBackend, "run", failing)
        code, out, err = dest(*command)
    assert (code, out) == (2, "")
    assert "the simulator broke" in err
    assert "note: `out/trace.json` shows what was done until then" in err

    def attempts() -> list[str]:
        trace = json.loads(Path("out/trace.json").read_text("ascii"))["traceEvents"]
        return [e["args"]["status"] for e in trace if e.get("cat") == "task" and e["ph"] == "X"]

    first = attempts()
    assert {"done", "failed"} == set(first)
    done = dest(*command)
    assert "`out/tasks.jsonl` has tasks of a run that did not end; those of this one" in done[2]
    again = document_of(done)
    assert (again["value"], again["stderr"]) == (plain["value"], plain["stderr"])
    assert len(attempts()) == len(first) + again["record"]["num_subexperiments"]
    tasks = [r for r in read_records("out/tasks.jsonl") if isinstance(r, TaskRecord)]
    assert len({task.run_id for task in tasks}) == 2
    (query,) = (r for r in read_records("out/queries.jsonl") if isinstance(r, QueryRecord))
    assert query.run_id == tasks[-1].run_id
    assert dest(*command)[0] == 2  # that one has ended


def test_a_run_that_is_interrupted_is_drawn(
    dest: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    begun, write = threading.Event(), RecordWriter.write

    def writing(self: RecordWriter, record: Any) -> None:
        write(self, record)
        begun.set()

    def interrupted(self: EstimatorJob) -> Any:
        assert begun.wait(60)
        self.cancel()
        raise KeyboardInterrupt

    monkeypatch.setattr(RecordWriter, "write", writing)
    monkeypatch.setattr(EstimatorJob, "result", interrupted)
    code, _, err = dest(*ESTIMATE, "--trace", "out")
    assert code == 130
    assert "interrupted" in err
    assert json.loads(Path("out/trace.json").read_text("ascii"))["traceEvents"]


def test_a_file_in_the_place_of_a_trace_is_left_alone(dest: Callable[..., Any]):
    Path("out").mkdir()
    Path("out/tasks.jsonl").write_text("my tasks\n", "utf-8")
    code, out, err = dest(*ESTIMATE, "--trace", "out")
    assert (code, out) == (2, "")
    assert "out/tasks.jsonl, line 1 is unreadable" in err
    assert Path("out/tasks.jsonl").read_text("utf-8") == "my tasks\n"
    Path("out/tasks.jsonl").rename("out/trace.json")
    code, out, err = dest(*ESTIMATE, "--trace", "out")
    assert (code, out) == (2, "")
    assert "`out/trace.json` is there already: name another folder with --trace" in err
    assert [path.read_text("utf-8") for path in Path("out").iterdir()] == ["my tasks\n"]


def test_a_journal_is_gone_on_from(dest: Callable[..., Any]):
    command = (*ESTIMATE, "--journal", "run.journal", "--json")
    plain = document_of(dest(*ESTIMATE, "--json"))
    first = document_of(dest(*command))
    assert first["value"] == plain["value"]
    whole = Path("run.journal").read_bytes()
    lines = whole.splitlines(keepends=True)
    assert len(lines) > 2
    Path("run.journal").write_bytes(b"".join(lines[:-1]) + lines[-1][:-9])  # as if it was killed
    again = document_of(dest(*command, "--trace", "out"))
    assert (again["value"], again["stderr"]) == (plain["value"], plain["stderr"])
    assert Path("run.journal").read_bytes() == whole
    tasks = [r for r in read_records("out/tasks.jsonl") if isinstance(r, TaskRecord)]
    assert [task.key for task in tasks] == [json.loads(lines[-1])["key"].split()[-1]]
    third = document_of(dest(*command, "--trace", "none"))
    assert third["value"] == plain["value"]
    assert third["files"] == {"queries": "none/queries.jsonl", "trace": "none/trace.json"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--batch-size", 8), "`--tasks-per-batch` belongs to `--policy` batches"),
        (("--address", "tcp://a:1"), "`--pool` is threads"),
        (("--straggler-p", 0.1), "needs a delay"),
        (("--deadline", "nan"), "`--deadline` is nan"),
        (("--journal", "chain.qasm"), "is no journal: name another file"),
        (("--journal", "chain.qasm/x", "--trace", "out"), "must be a folder or file"),
        (("--journal", "/dev/null", "--trace", "out"), "`/dev/null` is no regular file"),
        (("--trace", "chain.qasm"), "cannot write"),
        (("--trace", "out", "--label", "AB"), "label"),
        (("--journal", "new.journal", "--label", "AB"), "label"),
    ],
)
def test_bad_input_ends_in_one_line_and_leaves_nothing(
    dest: Callable[..., Any], arguments: tuple[object, ...], message: str
):
    code, out, err = dest(*ESTIMATE, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert [path.name for path in Path().iterdir()] == ["chain.qasm"]


# --- training, from end to end

SMALL = TrainingConfig(
    workload=WorkloadConfig("iris", samples=6, test_samples=4, num_features=2),
    cuts=1,
    shots=20,
    epochs=2,
    workers=2,
)
TRACED = replace(
    SMALL,
    policy=Policy(Batches(4), LongestFirst(), speculation=Speculation()),
    stragglers=Stragglers(0.3, Constant(0.001)),
    trace=True,
)


def trained(config: TrainingConfig, path: Path, **options: Any) -> loop.TrainingResult:
    return loop.train(load_workload(config.workload), config, RunFolder(path), **options)


def tasks_of(folder: RunFolder) -> list[TaskRecord]:
    return [r for r in read_records(folder.tasks) if isinstance(r, TaskRecord)]


def test_what_is_learnt_does_not_depend_on_pool_and_policy(tmp_path: Path):
    brief, traced = replace(SMALL, epochs=1), replace(TRACED, epochs=1)
    plain, special = trained(brief, tmp_path / "plain"), trained(traced, tmp_path / "special")
    elsewhere = trained(replace(brief, pool="processes"), tmp_path / "elsewhere")
    results = (plain, special, elsewhere)
    assert len({result.folder.weights.read_text() for result in results}) == 1
    pools = [load_queries(result.folder.queries)[0].pool for result in results]
    assert pools == ["threads", "threads", "processes"]
    assert not plain.folder.tasks.exists()
    assert not plain.folder.trace.exists()
    summary = json.loads(special.folder.summary.read_text())
    assert TrainingConfig.from_dict(summary["config"]) == traced
    trace = json.loads(special.folder.trace.read_text("ascii"))["traceEvents"]
    queries = load_queries(special.folder.queries)
    assert sum(event.get("cat") == "query" for event in trace) == len(queries)
    assert {task.query_id for task in tasks_of(special.folder)} == {q.query_id for q in queries}
    again = TrainedNetwork.load(special.folder)
    assert again.config == traced
    options = again.classifier.layer.network.estimator.options
    assert (options.policy, options.stragglers) == (Policy(), None)


def test_a_run_that_goes_on_has_every_task_once(tmp_path: Path):
    whole = trained(TRACED, tmp_path / "whole")
    done = []

    def killed(record: object) -> None:
        done.append(record)
        if len(done) == 2:
            raise KeyboardInterrupt

    folder = RunFolder(tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        trained(TRACED, folder.path, progress=killed)
    with folder.tasks.open("ab") as log:  # tasks of a query that the checkpoint knows nothing of
        log.write(folder.tasks.read_bytes().splitlines(keepends=True)[-1])
    assert RunState.load(folder.checkpoint).config == TRACED
    result = loop.resume(folder)
    assert result.folder.weights.read_text() == whole.folder.weights.read_text()

    def done_keys(folder: RunFolder) -> list[str]:
        return sorted(task.key for task in tasks_of(folder) if task.status == "done")

    assert done_keys(folder) == done_keys(whole.folder)


def test_a_task_log_of_another_run_is_refused(tmp_path: Path):
    brief = replace(TRACED, epochs=1)
    first, second = (trained(brief, tmp_path / name).folder for name in ("first", "second"))
    first.tasks.write_bytes(second.tasks.read_bytes())
    with pytest.raises(CheckpointError, match=r"tasks\.jsonl` is of run"):
        loop.resume(first)
