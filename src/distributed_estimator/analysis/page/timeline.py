"""Tasks of single queries by worker, from task records."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import RecordError
from ...records import QueryRecord, TaskRecord, read_records
from ..escape import one_line
from ..placement import PlacedQuery, lanes, nanoseconds, place_queries
from ..study.groups import SERIES, canonical, grouped, told_cuts
from ..study.runs import Run, Study
from ..study.words import counted, number
from ..tables import STAGES
from ..trace import natural
from .keys import fragment_keys, key, stage_keys
from .model import Column, Spec, Table

MOST_TIMELINES = 40
MOST_TASKS = 300
_LOGS = ("tasks.jsonl", "tasks.jsonl.gz")
_QUERY_LOGS = ("queries.jsonl", "queries.jsonl.gz")
_SECOND = 1e9
_BUSY = ("done", "late")
_SEED = ("seed", "queries")
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Timeline:
    """One query with its tasks.

    Attributes:
        group: What it belongs to.
        label: What sets it apart within the group.
        query: The query.
        run: The id of its run's folder.
    """

    group: str
    label: str
    query: PlacedQuery
    run: str

    @property
    def chart(self) -> Spec:
        """Workers as rows, tasks as bars on the clock of the query."""
        tasks = sorted(self.query.tasks, key=lambda task: (task.started is None, task.submitted))
        shown = [task for task in tasks if task.started is not None][:MOST_TASKS]
        keys = fragment_keys(task.fragment for task in shown)
        if any(task.injected_delay > 0 for task in shown):
            keys.append(key("delay", "injected delay", ("grey", "backward")))
        title = "tasks by worker"
        if len(tasks) > len(shown):
            title += f", {len(shown)} of {len(tasks)} shown"
        groups = [{"title": title, "rows": list(_workers(shown))}]
        if self.query.record is not None:
            groups.insert(0, {"title": "stages", "rows": [_stages(self.query.record)]})
            keys = [*stage_keys(), *keys]
        return {
            "title": f"{self.group}: {self.label}",
            "axis": {"label": "time since the query began (ms)"},
            "thin": True,
            "keys": keys,
            "panels": [{"title": f"{self.group}: {self.label}", "groups": groups}],
        }


def timelines_of(study: Study) -> tuple[list[Timeline], int]:
    """One query of each kind that was traced, the median of its run by time; and how many kinds.

    Runs that differ in their seeds alone are of one kind. No more than `MOST_TIMELINES` are made.
    Task records that are damaged are warned of, and left out.
    """
    kinds = traced_kinds(study)
    found = []
    for members in kinds[:MOST_TIMELINES]:
        try:
            found.append(_timeline(members[0]))
        except RecordError as error:  # drawn from here alone: the run's numbers are sound
            _LOGGER.warning("timeline left out: %s", error)
    return [timeline for timeline in found if timeline is not None], len(kinds)


def traced_kinds(study: Study) -> list[list[Run]]:
    """Runs that recorded their tasks, by kind; of each kind the first is drawn."""
    traced = [run for run in study.runs if run.status == "done" and _log(run.folder, _LOGS)]
    return list(grouped(traced, _kind).values())


def timelines_of_run(folder: Path, name: str) -> list[Timeline]:
    """The slowest query of a run and the median one; none where it was not traced.

    Raises:
        RecordError: Task records are damaged.
    """
    queries = _by_time(folder)
    if not queries:
        return []
    chosen = {"median query": queries[(len(queries) - 1) // 2], "slowest query": queries[-1]}
    return [Timeline(name, label, query, folder.name) for label, query in chosen.items()]


def _kind(run: Run) -> tuple[str, ...]:
    config = {name: value for name, value in run.config.items() if name not in _SEED}
    place = f"{run.experiment} {run.dataset} {run.cuts} {config.get('devices')}"
    return place, run.pipeline, canonical(config)


def _timeline(run: Run) -> Timeline | None:
    queries = _by_time(run.folder)
    if not queries:
        return None
    config = run.config
    parts = [run.dataset, told_cuts(run.cuts)]
    parts += [str(config["policy"])] if config.get("policy") else []
    places = ("worker", "device")
    parts += [counted(config[f"{name}s"], name) for name in places if config.get(f"{name}s")]
    parts += [f"p = {config['straggler_p']}"] if config.get("straggler_p") else []
    group = one_line(f"{run.experiment}, {SERIES[run.pipeline]} ({run.origin})")
    return Timeline(group, one_line(", ".join(parts)), queries[(len(queries) - 1) // 2], run.run_id)


def _by_time(folder: Path) -> list[PlacedQuery]:
    """Traced queries of a run, the fastest first."""
    log = _log(folder, _LOGS)
    if log is None:
        return []
    known = (_log(folder, _QUERY_LOGS), log)
    records = list(read_records(*(path for path in known if path is not None)))
    tasks = [record for record in records if isinstance(record, TaskRecord)]
    queries = [record for record in records if isinstance(record, QueryRecord)]
    placed = [query for track in place_queries(tasks, queries) for query in track.queries]
    return sorted(placed, key=lambda query: query.end - query.begin)


def _log(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _stages(record: QueryRecord) -> dict[str, Any]:
    marks, end = [], 0.0
    for name, field in STAGES:
        length = 1e3 * float(getattr(record, field))
        told = [f"{name}: {number(length)} ms"]
        marks.append({"key": name, "from": end, "to": end + length, "look": "slice", "told": told})
        end += length
    return {"label": "query", "marks": marks}


def _workers(tasks: Sequence[TaskRecord]) -> Iterable[dict[str, Any]]:
    for worker, members in sorted(
        grouped(tasks, lambda task: task.worker).items(), key=lambda item: natural(item[0])
    ):
        for lane in lanes(_slice(task) for task in members):
            label = one_line(f"worker {worker}", 24) + (f" ({lane.number + 1})" * bool(lane.number))
            marks = [mark for begin, end, task in lane.slices for mark in _marks(begin, end, task)]
            yield {"label": label, "marks": marks}


def _slice(task: TaskRecord) -> tuple[int, int, TaskRecord]:
    what = f"task {task.key}"
    begin = nanoseconds(task.started or 0.0, what)
    return begin, max(begin, nanoseconds(task.finished, what)), task


def _marks(begin: int, end: int, task: TaskRecord) -> list[dict[str, Any]]:
    told = [
        one_line(f"fragment {task.fragment}, {task.status}, {task.purpose}"),
        f"{number((end - begin) / 1e6)} ms on worker {one_line(task.worker, 40)}",
        f"submitted at {number(1e3 * task.submitted)} ms, begun at {number(begin / 1e6)} ms",
        f"{counted(task.subexperiments, 'subexperiment')}, attempt {task.attempt + 1}",
    ]
    if task.cause:
        told.append(one_line(task.cause))
    look = "slice" if task.status in _BUSY else "lost"
    place = {"key": f"fragment-{task.fragment}", "from": begin / 1e6, "to": end / 1e6}
    marks = [{**place, "look": look, "told": told}]
    if task.injected_delay > 0:
        delay = min(end / 1e6, begin / 1e6 + 1e3 * task.injected_delay)
        slept = [f"injected delay: {number(1e3 * task.injected_delay)} ms", *told]
        marks.append(
            {"key": "delay", "from": begin / 1e6, "to": delay, "look": "inner", "told": slept}
        )
    return marks


def timeline_table(timelines: Sequence[Timeline]) -> Table:
    """What each timeline shows, in numbers."""
    names = ("experiment", "query", "run", "tasks", "workers", "ms", "busy share", "delay s")
    rows = []
    for line in timelines:
        begun = [task for task in line.query.tasks if task.started is not None]
        workers = len({task.worker for task in begun})
        length = (line.query.end - line.query.begin) / _SECOND
        busy = sum(max(0.0, task.finished - (task.started or 0.0)) for task in begun)
        share = busy / (workers * length) if workers and length > 0 else None
        numbers = (
            *(len(line.query.tasks), workers, 1e3 * length, share),
            sum(task.injected_delay for task in begun),
        )
        rows.append((line.group, line.label, one_line(line.run, 40), *map(number, numbers)))
    columns = tuple(Column(name, place > 2) for place, name in enumerate(names))
    return Table("One traced query of each kind", columns, tuple(rows))
