"""A study's folder with numbers that can be checked by hand."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import record_examples

from distributed_estimator.records import QueryRecord, RecordWriter

LABELS = ("AAAA", "AABB", "ABCC", "ABCD")
EPOCHS = {"training": {"iris": 60, "mnist": 10}, "scaling": {"iris": 10, "mnist": 5}}
SIX = (1, 12, 108, 864)
"""Subexperiments of a reference query by cuts."""


class StudyFolder:
    """Writes runs as `dest study run` does."""

    def __init__(self, path: Path, name="paper", scale="full", **more):
        self.path = path
        path.mkdir(parents=True)
        document = {"schema_version": 1, "name": name, "scale": scale, "hash": "abc", "config": {}}
        (path / "study.json").write_text(json.dumps({**document, **more}))

    def add(self, experiment, kind, results=None, pipeline="contracted", queries=(), **changes):
        """A finished run; failed with a `cause`, unfinished without results and cause."""
        cause = changes.pop("cause", None)
        config = {**self.config(experiment, kind), **changes}
        config["label"] = changes.get("label", LABELS[config["cuts"]])
        content = {"schema_version": 1, "experiment": experiment, "kind": kind}
        content |= {"pipeline": pipeline, "config": config}
        text = json.dumps(content, sort_keys=True)
        run_id = hashlib.sha256(text.encode()).hexdigest()[:12]
        folder = self.path / "runs" / run_id
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({**content, "run_id": run_id}))
        result = {"schema_version": 1, "run_id": run_id, "attempts": 1}
        if cause is not None:
            result |= {"status": "failed", "cause": cause, "attempts": 3}
        if results is not None:
            result |= {"status": "done", "seconds": 1.0, "results": results}
            with RecordWriter(folder / "queries.jsonl") as log:
                for number, record in enumerate(queries):
                    log.write(query_record(pipeline, config, number, **record))
        if "status" in result:
            (folder / "result.json").write_text(json.dumps(result))
        return folder

    @staticmethod
    def config(experiment, kind):
        """The part of a configuration that no test is about."""
        shared = {
            "dataset": "iris",
            "qubits": 4,
            "cuts": 0,
            "seed": 1,
            "shots": 1024,
            "workers": 8,
            "pool": "threads",
            "policy": "eager",
            "policy_options": {"dispatch": "eager"},
            "straggler_p": 0.0,
            "straggler_delay": 0.0,
            "model": {"ansatz_reps": 1},
            "samples": None,
            "trace": False,
        }
        if kind == "train":
            return {**shared, "backend": "aer", "epochs": 10, "robustness": None}
        told = {"simulator_threads": 1, "defer_measurements": False}
        return {**shared, "backend": "aer", "queries": 2, "devices": None, "device": None, **told}


def trained(seconds, accuracy=0.9, robust=0.8, queries=1000):
    """Results of a training."""
    curve = [[0.0, 1.0, 0.9, 1.0], [0.1, robust, 0.5, 1.0], [0.2, robust - 0.2, 0.4, 0.9]]
    return {
        "training_seconds": seconds,
        "test_accuracy": accuracy,
        "reference_queries": queries,
        "robustness": {"gaussian": curve, "fgsm": [[0.1, robust - 0.1, 0.4, 0.9]]},
        "robustness_summary": None,
    }


def small(tmp_path, **more):
    """A study with one pair of trainings."""
    study = StudyFolder(tmp_path / "study", **more)
    study.add("training", "train", trained(2.0))
    study.add("training", "train", trained(3.0), cuts=3)
    return study


def paper_study(path, **more):
    """A study with a run for everything that the report shows."""
    study = StudyFolder(path, **more)
    for dataset in ("iris", "mnist"):
        _add_trainings(study, dataset)
    for cuts in range(4):
        ours = [{"total": 0.01, "share": 0.01 * (1 + cuts), "subexperiments": 10 * cuts or 1}] * 2
        theirs = [
            {"total": 10.0**cuts * t, "share": 0.5, "subexperiments": SIX[cuts]} for t in (1, 2, 3)
        ]
        shares = {"dataset": "iris", "cuts": cuts}
        study.add("shares", "queries", {"median_seconds": 0.01}, queries=ours, **shares)
        study.add("shares", "queries", {"median_seconds": 1.0}, "reference", theirs, **shares)
        for devices in (1, 4, 16):
            place = {"devices": devices, "workers": devices, "backend": "fleet", "cuts": cuts}
            seconds = (cuts + 1) / devices
            study.add("fleet", "queries", {}, queries=[{"total": seconds, "share": 0.01}], **place)
    _add_policies(study)
    add_causes(study)
    return study


def query_record(
    pipeline, config, number, total=1.0, share=0.5, subexperiments=10, **changes
) -> QueryRecord:
    """A query that took `total` seconds, `share` of it for reconstruction and a tenth before."""
    fields = {
        "query_id": str(number),
        "pipeline": pipeline,
        "num_queries": 1,
        "partition_label": config["label"],
        "num_cuts": config["cuts"],
        "num_fragments": config["cuts"] + 1,
        "num_terms": 6 ** config["cuts"],
        "num_subexperiments": subexperiments,
        "num_circuits": subexperiments,
        "shots_total": 1024 * subexperiments,
        "backend": "qiskit_aer.SamplerV2" if config["backend"] == "aer" else config["backend"],
        "subexp_workers": config["workers"],
        "t_partition": 0.04 * total,
        "t_generate": 0.06 * total,
        "t_execute": (0.9 - share) * total,
        "t_reconstruct": share * total,
        "t_total": total,
    }
    return record_examples.query_record(**{**fields, **changes})


CAUSES = (
    # workers, threads, deferred, T_exec and T_rec of the median query
    (1, 1, False, 4.0, 1.0),
    (2, 1, False, 2.0, 1.0),
    (8, 1, False, 2.5, 1.0),
    (8, None, False, 7.5, 1.0),
    (1, 1, True, 0.5, 1.0),
)


def add_causes(study, variants=CAUSES, dataset="mnist", seed=1, held=2, **changes):
    """Three queries of each variation, a tenth apart; 0.5 s of each go to the first stages.

    `held` is how many threads the simulator could have where it chose itself.
    """
    for workers, threads, deferred, execute, rebuilt in variants:
        queries = [
            {
                "total": 0.5 + execute * scale + rebuilt,
                "t_partition": 0.1,
                "t_generate": 0.4,
                "t_execute": execute * scale,
                "t_reconstruct": rebuilt,
                "subexperiments": SIX[2],
                "max_fragment_qubits": 4,
            }
            for scale in (0.9, 1.0, 1.1)
        ]
        what = {"workers": workers, "simulator_threads": threads, "defer_measurements": deferred}
        place = {"dataset": dataset, "cuts": 2, "seed": seed, **changes}
        results = {"median_seconds": 0.5 + execute + rebuilt}
        results["simulator_threads"] = held if threads is None else threads
        study.add("causes", "queries", results, "reference", queries, **what, **place)


def _add_trainings(study, dataset):
    for cuts in range(4):
        for seed in (1, 2, 3):
            results = trained(
                (10 + cuts) * seed,
                0.9 + 0.01 * seed * (cuts == 2),
                0.8 - (0.1 + 0.01 * seed) * (cuts == 3),
            )
            budget = EPOCHS["training"][dataset]
            study.add(
                "training", "train", results, dataset=dataset, cuts=cuts, seed=seed, epochs=budget
            )
        for workers in (1, 2, 4, 8, 16):
            results = trained(8.0 / workers**0.5 + cuts)
            budget = EPOCHS["scaling"][dataset]
            what = {"dataset": dataset, "cuts": cuts, "workers": workers, "epochs": budget}
            circuits = 10 * cuts or 1
            query = {"total": 0.001 * circuits, "subexperiments": circuits}
            queries = [{**query, "backend": "statevector"}] * 2
            study.add("scaling", "train", results, queries=queries, **what)
        for p in (0.0, 0.2):
            results = trained(2.0 * (1 + (5 - cuts) * p))
            budget = 10 if dataset == "iris" else 3
            what = {"dataset": dataset, "cuts": cuts, "straggler_p": p, "straggler_delay": 0.1}
            study.add("stragglers", "train", results, epochs=budget, **what)


def _add_policies(study):
    for number, policy in enumerate(("eager", "batches", "longest", "duplicate", "restart")):
        for p in (0.0, 0.2):
            for seed in (1, 2, 3):
                results = {
                    "median_seconds": 0.1 + p * seed / (1 + number),
                    "lower_bound": 0.05 + p / 10,
                }
                what = {
                    "policy": policy,
                    "policy_options": {"name": policy},
                    "cuts": 3,
                    "seed": seed,
                }
                place = {"devices": 8, "backend": "fleet", "straggler_p": p, "straggler_delay": 0.1}
                study.add(
                    "policies", "queries", results, queries=[{}], dataset="mnist", **what, **place
                )
