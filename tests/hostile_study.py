"""A study and a run with hostile text wherever text is read from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from study_folders import StudyFolder, add_causes, paper_study, query_record, trained

from distributed_estimator.records import RecordWriter, TaskRecord, TrainingRecord

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"\'` onmouseover=alert(1) x="',
    "\u202eשלום عالم\u2066",
    "🧪\u2028\u2029\x00\x1b[31m\ud800",
    "{{ 7 * 191 }}{% raw %}",
    "javascript:alert(1)",
    "]]>--><svg/onload=alert(1)>",
    "y" * 10_000,
)


def text(number: int) -> str:
    """One of the hostile texts; neighbouring numbers have different ones."""
    return HOSTILE[number % len(HOSTILE)] + f" {number}"


def all_of_it() -> str:
    """All of them in one."""
    return "".join(HOSTILE[:-1])


def task(number, **changes):
    """An attempt at a task that took 10 ms."""
    fields = {
        "run_id": "run",
        "query_id": "0",
        "key": f"key {number}",
        "job": number,
        "fragment": number % 3,
        "rows": (0, 1),
        "circuits": (number, 1),
        "chunk": 0,
        "shots": 1024,
        "subexperiments": 1,
        "worker": str(number % 2),
        "attempt": 0,
        "purpose": "first",
        "submitted": 0.1,
        "started": 0.1 + 0.01 * number,
        "finished": 0.11 + 0.01 * number,
        "injected_delay": 0.004 if number == 3 else 0.0,
        "status": "failed" if number == 4 else "done",
    }
    return TaskRecord(**{**fields, **changes})


def write_tasks(folder: Path, tasks) -> None:
    """The task log of a run."""
    with RecordWriter(folder / "tasks.jsonl") as log:
        for record in tasks:
            log.write(record)


def rewrite_header(log: Path, **changes) -> None:
    """Changes what a file says of its writer."""
    first, *rest = log.read_text().splitlines()
    header = {**json.loads(first), **changes}
    log.write_text("\n".join([json.dumps(header), *rest]) + "\n")


def hostile_study(path: Path) -> Path:
    """A study whose names, versions, causes and tasks are hostile; returns its folder."""
    config = {"about": text(1), "deviations": list(HOSTILE)}
    study = StudyFolder(path, name=text(0), scale=text(2), hash=text(3), config=config)
    (study.path / "study.json").write_text(
        json.dumps({**json.loads((study.path / "study.json").read_text()), "created_at": text(4)})
    )
    for number in range(len(HOSTILE)):
        what = {"dataset": text(number), "pool": text(number + 1), "policy": text(number + 2)}
        for cuts in (0, 1):
            study.add("training", "train", trained(2.0 + cuts), cuts=cuts, **what)
        study.add("training", "train", cause=text(number), cuts=3, **what)
        query = [{"total": 0.5, "backend": text(number)}]
        shares = {**what, "cuts": 1, "backend": text(number), "label": text(number)}
        results = {"median_seconds": 0.5}
        folder = study.add("shares", "queries", results, queries=query, **shares)
        study.add("shares", "queries", results, "reference", query, **shares)
        told = {"worker": text(number), "cause": text(number + 1), "purpose": text(number)}
        write_tasks(folder, [task(one, **told) for one in range(5)])
        hostile = {"versions": {text(number): text(number)}, "processor": text(number)}
        rewrite_header(folder / "queries.jsonl", **hostile, commit=text(number), dirty=True)
        add_causes(study, **{**what, "label": text(number), "policy": text(number)})
        setup = {"policy": text(number), "pool": text(number + 1), "backend": text(number + 2)}
        batches = [{**setup, "subexperiments": count} for count in range(1, 11)]
        study.add("scaling", "train", trained(1.0), queries=batches, **what)
    study.add(text(5), "queries", {"median_seconds": 1.0}, queries=[{}])
    threads = {"usable_cpus": "".join(HOSTILE[:-1]), "OMP_NUM_THREADS": "".join(HOSTILE[:-1])}
    for log in study.path.glob("runs/*/queries.jsonl"):
        rewrite_header(log, threads=threads)
    _rename(folder, "<img src=x onerror=alert(2)>")
    return path


def _rename(folder: Path, run_id: str) -> None:
    """A run whose id is hostile: it names a folder, and links lead there."""
    for name in ("run.json", "result.json"):
        document = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**document, "run_id": run_id}))
    folder.rename(folder.with_name(run_id))


def traced_study(path: Path) -> Path:
    """A study with a run for everything that a report shows, tasks too; returns its folder."""
    study = paper_study(path)
    for cuts in (1, 2):
        shares = {"dataset": "mnist", "cuts": cuts, "trace": True}
        folder = study.add("shares", "queries", {"median_seconds": 1.0}, queries=[{}], **shares)
        write_tasks(folder, [task(number) for number in range(6)])
    study.add("training", "train", cause="Aer died", cuts=3, seed=9)
    return path


def training_run(path: Path, name="iris_binary", steps=5) -> Path:
    """The folder of a training run with robustness and tasks; returns it."""
    path.mkdir(parents=True)
    config = {"label": "AABB", "cuts": 1, "workers": 2, "backend": "statevector"}
    with RecordWriter(path / "queries.jsonl") as log:
        for number in range(3):
            log.write(query_record("contracted", config, number, total=0.2 * (number + 1)))
    with RecordWriter(path / "training.jsonl") as log:
        for step in range(steps):
            scores = {"train_accuracy": 0.1 * (step % 9), "test_accuracy": 0.5}
            fields = {"run_id": "run", "epoch": step, "queries": 10 * step, "at": 0.1 * step}
            record = TrainingRecord(step=step, loss=1 / (1 + step), metrics=scores, **fields)
            log.write(record)
    summary = {"schema_version": 2, "workload": name, "config": {"optimizer": name, "lr": 0.1}}
    (path / "summary.json").write_text(json.dumps(summary))
    curve = [[0.0, 0.9, 0.8, 1.0], [0.1, 0.8, 0.7, 0.9]]
    points = [dict(zip(("magnitude", "accuracy", "low", "high"), p, strict=True)) for p in curve]
    curves = {"gaussian": {"points": points}, "fgsm": {"points": points}}
    (path / "robustness.json").write_text(json.dumps({"kind": "robustness", "curves": curves}))
    write_tasks(path, [replace(task(number), worker=name) for number in range(4)])
    return path
