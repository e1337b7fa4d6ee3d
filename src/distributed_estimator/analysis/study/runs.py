"""A study's folder: its runs, what they came to, and which of them may be compared."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...errors import RecordError, named
from ...records import Header, QueryRecord, given_path, read_records, to_dict
from ..escape import one_line
from ..load import QueryTotals
from .checks import ForeignError, check_one_study, check_run, listed_runs, read_document

STATUSES = ("done", "failed")
MANIFEST = "archive.json"
"""Says in an archive what was left out of it."""
COMPRESSED = "runs/*/*.jsonl.gz"
REPEAT = "remove their folders, and `dest study run` repeats them"
"""What to do about runs that are damaged."""
_MOST = 1e18
"""Greater numbers are no count and no time of anything that was run."""
_LOGS = ("queries.jsonl", "queries.jsonl.gz")
_OF_ONE_RUN = ("kind", "schema_version", "attempt", "config_hash")


@dataclass(frozen=True)
class Run:
    """One run of a study.

    Attributes:
        run_id: Its content hash, and its folder's name.
        experiment: What it belongs to: training, scaling, shares, stragglers, policies, fleet or
            causes.
        kind: "train" or "queries".
        pipeline: "contracted" (ours) or "reference" (the paper's).
        config: Everything else that decides the run.
        status: "done", "failed" or "unfinished".
        folder: Where its records are.
        attempts: How often it was tried; 0: not known.
        cause: Why it failed.
        results: Its numbers; empty unless it is done.
        totals: What its queries cost.
        backends: As its query records name them.
    """

    run_id: str
    experiment: str
    kind: str
    pipeline: str
    config: Mapping[str, Any]
    status: str
    folder: Path
    attempts: int = 0
    cause: str | None = None
    results: Mapping[str, Any] = field(default_factory=dict)
    totals: QueryTotals = field(default_factory=QueryTotals)
    backends: tuple[str, ...] = ()

    @property
    def dataset(self) -> str:
        """The workload's name."""
        return str(self.config["dataset"])

    @property
    def cuts(self) -> int:
        """How many cuts."""
        return int(self.config["cuts"])

    @property
    def origin(self) -> str:
        """Whether its numbers are simulated, of a fake backend or of a real one."""
        names = [str(self.config.get("backend")), *self.backends]
        told = " ".join(names).lower()
        if self.config.get("devices") is not None or "fleet" in told:
            return "simulated fleet"
        if "fake" in told or "fake" in json.dumps(self.config.get("device")).lower():
            return "fake backend"
        if all(known(name) for name in names):
            return "local simulator"
        return "real backend " + ", ".join(dict.fromkeys(n for n in names if not known(n)))

    @property
    def is_usual(self) -> bool:
        """Whether it was simulated as all are but variations: with one thread, as it stands."""
        one_thread = self.config.get("simulator_threads", 1) == 1
        return one_thread and not self.config.get("defer_measurements")

    def number(self, name: str) -> float | None:
        """A number of its results; None where there is none.

        Raises:
            RecordError: Something else stands there.
        """
        value = self.results.get(name)
        if value is None:
            return None
        if type(value) not in (int, float) or not abs(value) <= _MOST:
            raise RecordError(
                f"{self.folder / 'result.json'} is damaged: `{name}` is {value!r:.60}, expected a "
                "finite number; run the study again without this file"
            )
        return float(value)

    @property
    def seconds(self) -> float | None:
        """Training time, or the median time of a query; None: not measured."""
        name = "training_seconds" if self.kind == "train" else "median_seconds"
        found = self.number(name)
        if found is not None and found < 0:
            raise RecordError(
                f"{self.folder / 'result.json'} is damaged: `{name}` is {found}, expected at least "
                "0; run the study again without this file"
            )
        return found

    def queries(self) -> list[QueryRecord]:
        """Its query records, read again.

        Raises:
            RecordError: They cannot be read, or are damaged.
        """
        path = _log(self.folder)
        records = read_records(path) if path else ()
        return [record for record in records if isinstance(record, QueryRecord)]


@dataclass(frozen=True)
class Study:
    """What a study's folder holds.

    Attributes:
        folder: The folder.
        name: Of the matrix, such as paper.
        scale: smoke, laptop or full.
        digest: Hash of its configuration.
        config: That configuration.
        runs: By run id.
        not_begun: Run ids of its matrix that have no folder yet.
        environments: Versions and machines that made its records, each once.
        created: When it was begun, as its study.json says; empty: not known.
        damaged: Why runs that have files cannot be read, by run id; they are not in `runs`.
    """

    folder: Path
    name: str
    scale: str
    digest: str
    config: Mapping[str, Any]
    runs: tuple[Run, ...]
    not_begun: tuple[str, ...]
    environments: tuple[Mapping[str, Any], ...]
    created: str
    damaged: Mapping[str, str] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """How many runs there are, by status; those that are damaged too."""
        found = Counter(run.status for run in self.runs)
        found.update({"damaged": len(self.damaged)} if self.damaged else {})
        return dict(sorted(found.items()))

    @property
    def place(self) -> str:
        """Where what is missing can be run: its folder, and for an archive one to be named."""
        return "DIR" if is_archive(self.folder) else str(self.folder)

    def done(self, experiment: str, kind: str | None = None) -> list[Run]:
        """The finished runs of an experiment, of one kind or of both."""
        return [
            run
            for run in self.runs
            if run.status == "done" and run.experiment == experiment and kind in (None, run.kind)
        ]


def is_archive(folder: Path) -> bool:
    """Whether a study's folder was packed, so that nothing can be run in it."""
    return (folder / MANIFEST).is_file() or any(folder.glob(COMPRESSED))


def known(backend: str) -> bool:
    """Whether a backend's name is that of a simulator on this machine."""
    name = backend.lower()
    return name in ("none", "null", "") or "statevector" in name or "aer" in name


def load_study(folder: Path | str) -> Study:
    """Reads a study's folder; nothing is written.

    Raises:
        RecordError: It is no study, empty, of a newer schema or a mixture of two, its study.json is
            damaged, or all of its runs are.
    """
    folder = given_path(folder)
    if not (folder / "study.json").is_file():
        remedy = "name the folder that `dest study run … --out` wrote"
        if (folder / "records" / "study.json").is_file():
            remedy = "its `records` are one: name them, or give `--from-logs`"
        raise RecordError(f"{folder} is no study: it has no study.json; {remedy}")
    study = read_document(folder / "study.json", {"name": str, "scale": str, "hash": str})
    config, created = study.get("config", {}), study.get("created_at")
    if not isinstance(config, dict):
        raise RecordError(f"{folder / 'study.json'} is damaged: `config` is no JSON object")
    environments: dict[str, Mapping[str, Any]] = {}
    runs: list[Run] = []
    damaged: dict[str, str] = {}
    for path in _run_folders(folder):
        try:
            runs.append(_load_run(path, environments))
        except ForeignError:
            raise
        except RecordError as error:
            damaged[path.name] = str(error)
    expected = listed_runs(folder, study)
    check_one_study(folder, runs, expected, config)
    if not runs:
        if damaged:
            raise RecordError(f"no run of {folder} can be read: {named(list(damaged.values()))}")
        raise RecordError(
            f"{folder} holds no run: start it with `dest study run {one_line(study['name'])} "
            f"--scale {one_line(study['scale'])} --out {folder}`"
        )
    return Study(
        folder=folder,
        name=study["name"],
        scale=study["scale"],
        digest=study["hash"],
        config=config,
        runs=tuple(runs),
        not_begun=tuple(sorted((expected or set()) - {run.run_id for run in runs} - set(damaged))),
        environments=tuple(environments[key] for key in sorted(environments)),
        created=created if isinstance(created, str) else "",
        damaged=damaged,
    )


def _run_folders(folder: Path) -> Iterator[Path]:
    """Folders of runs; one that was only just made has neither file yet."""
    runs = folder / "runs"
    for path in sorted(runs.iterdir()) if runs.is_dir() else ():
        if any((path / name).exists() for name in ("run.json", "result.json")):
            yield path


def _load_run(folder: Path, environments: dict[str, Mapping[str, Any]]) -> Run:
    path = folder / "run.json"
    texts = ("run_id", "experiment", "kind", "pipeline")
    data = read_document(path, {**dict.fromkeys(texts, str), "config": dict})
    check_run(path, data)
    base = Run(
        run_id=data["run_id"],
        experiment=data["experiment"],
        kind=data["kind"],
        pipeline=data["pipeline"],
        config=data["config"],
        status="unfinished",
        folder=folder,
    )
    if not (folder / "result.json").exists():
        return base
    result = read_document(folder / "result.json", {"status": str, "attempts": int})
    if result.get("run_id", base.run_id) != base.run_id:
        raise ForeignError(
            f"{folder / 'result.json'} belongs to run {result['run_id']!r:.40} and lies in the "
            f"folder of {base.run_id}: a mixture of two studies"
        )
    if result["status"] not in STATUSES:
        raise RecordError(
            f"{folder / 'result.json'} is damaged: `status` is {result['status']!r:.40}, expected "
            f"one of {STATUSES}"
        )
    ended = replace(base, status=result["status"], attempts=result["attempts"])
    if ended.status == "failed":
        return replace(ended, cause=str(result.get("cause")))
    if not isinstance(result.get("results"), dict):
        raise RecordError(f"{folder / 'result.json'} is damaged: it is done without `results`")
    totals, backends = _scan(folder, data["kind"], environments)
    return replace(ended, results=result["results"], totals=totals, backends=backends)


def _scan(
    folder: Path, kind: str, environments: dict[str, Mapping[str, Any]]
) -> tuple[QueryTotals, tuple[str, ...]]:
    """Reads the query log once: what it adds up to, its backends, and its headers."""
    path, totals, backends = _log(folder), QueryTotals(), set()
    if path is None and kind == "queries":
        raise RecordError(f"{folder} is damaged: its run is done and has no {_LOGS[0]}")
    for record in read_records(path) if path else ():
        if isinstance(record, QueryRecord):
            one = QueryTotals.of([record])
            if not all(0 <= number <= _MOST for number in vars(one).values()):
                raise RecordError(f"{path} is damaged: a query of it has no finite times")
            totals += one
            backends.add(record.backend)
        elif isinstance(record, Header):
            data = {k: v for k, v in to_dict(record).items() if k not in _OF_ONE_RUN}
            environments[json.dumps(data, sort_keys=True)] = data
    return totals, tuple(sorted(backends))


def _log(folder: Path) -> Path | None:
    return next((folder / name for name in _LOGS if (folder / name).is_file()), None)
