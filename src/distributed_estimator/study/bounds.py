"""Times that no policy can beat, for runs whose service times are known."""

from __future__ import annotations

from pathlib import Path

from ..records import DeviceRecord, read_records
from ..simulation import lower_bound
from .runs import StudyRun, stragglers_of


def query_bound(run: StudyRun, folder: Path) -> float | None:
    """Expected seconds of a query that no policy can beat.

    Only a simulated fleet is known well enough: elsewhere a task takes what the machine has time
    for. What a query takes besides its jobs comes on top, so the bound holds of `t_total`, too.

    Args:
        run: A run of kind "queries" that has ended.
        folder: Its folder.

    Returns:
        The bound; None where the run was not on a fleet.
    """
    if run.config["backend"] != "fleet":
        return None
    device, queries = run.config["device"], run.config["queries"]
    # A latency that varies might be cut short by policies that send a job twice, but no service is.
    there_and_back = 0.0 if device["jitter"] else 2 * device["latency"]
    jobs: dict[str, DeviceRecord] = {}
    for record in read_records(folder / "devices.jsonl"):
        if isinstance(record, DeviceRecord) and record.status == "done":
            jobs.setdefault(record.task, record)
    services = [there_and_back + job.finished - job.started for job in jobs.values()]
    subexperiments = [job.circuits for job in jobs.values()]
    # All queries of a run have the same jobs: together on so many times the devices, as one alone.
    workers = run.config["devices"] * queries
    return lower_bound(services, workers, stragglers_of(run), subexperiments)
