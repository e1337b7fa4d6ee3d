"""The process of a local Dask cluster: scheduler and nannies in it, workers below it.

Run as a program, it imports nothing of this package, so that workers are up sooner.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import threading
import time
from typing import Any, TextIO

_WATCH_SECONDS = 0.25
_LOOK_SECONDS = 1.0
_MOST_WITHOUT = 4
"""So many times the patience may no worker be up: starting one takes long on a busy machine."""

WORKERS_TOPIC = "distributed-estimator-workers"
"""Dask's event topic on which it is announced that workers came or went."""

_LOOPBACK = "127.0.0.1"
_SETTINGS = {
    "distributed.scheduler.allowed-failures": 0,  # the dispatcher counts, and tries again
    "distributed.scheduler.worker-ttl": "2 minutes",
    "distributed.scheduler.idle-timeout": None,
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.worker.daemon": False,  # a backend may have child processes
    "distributed.worker.multiprocessing-method": "spawn",
    "distributed.worker.profile.enabled": False,
    # A worker over its limit is ended, never paused: a paused one keeps its order for ever.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    # Dask would end, for good, a nanny whose worker is just being replaced a second time.
    "distributed.deploy.lost-worker-timeout": "1000 days",
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.diagnostics.nvml": False,
    "distributed.comm.require-encryption": False,  # nothing leaves the machine
    # So long does the scheduler ask a worker that has died for the answer that died with it.
    "distributed.comm.timeouts.connect": "5s",
}


def main() -> None:
    """Serve until killed, or until the parent is gone; the address goes to standard output."""
    import dask

    arguments = json.loads(sys.argv[1])
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what backends print must not fill a pipe that nobody reads
    watched = arguments["parent"], arguments["directory"]
    threading.Thread(target=_end_with, args=watched, daemon=True).start()
    with dask.config.set(_SETTINGS | {"temporary-directory": arguments["directory"]}):
        asyncio.run(_serve(arguments, answer))


def _end_with(parent: int, directory: str) -> None:
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    shutil.rmtree(directory, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


async def _serve(arguments: dict[str, Any], answer: TextIO) -> None:
    import distributed

    class Nanny(distributed.Nanny):
        def close_gracefully(self, reason: str = "") -> None:
            """Stay: a worker that loses the scheduler asks its nanny to end with it, for good."""

    make: Any = distributed.LocalCluster
    async with make(
        worker_class=Nanny,
        n_workers=arguments["workers"],
        threads_per_worker=1,
        memory_limit=arguments["memory_limit"],
        local_directory=arguments["directory"],
        preload=[arguments["preload"]],
        host=_LOOPBACK,
        dashboard_address=f"{_LOOPBACK}:0",
        worker_dashboard_address=f"{_LOOPBACK}:0",
        silence_logs=False,
        asynchronous=True,
    ) as cluster:
        print(cluster.scheduler_address, file=answer, flush=True)
        answer.close()
        cluster.scheduler.add_plugin(_looking_after(cluster), name="distributed-estimator")
        await _look_after(cluster, arguments["patience"])


def _looking_after(cluster: Any) -> Any:
    import distributed

    class LookAfter(distributed.SchedulerPlugin):
        """Announces changes to the pool, and ends workers that the scheduler lost.

        Their nannies start others. One whose sockets were closed under it may never notice, or wait
        for its task first.
        """

        def add_worker(self, scheduler: Any, worker: str) -> None:
            scheduler.log_event(WORKERS_TOPIC, {"worker": worker})

        def remove_worker(self, scheduler: Any, worker: str, **_: Any) -> None:
            scheduler.log_event(WORKERS_TOPIC, {"worker": worker})
            _end_worker(cluster, worker)

    return LookAfter()


def _end_worker(cluster: Any, address: str) -> None:
    for nanny in cluster.workers.values():
        if nanny.worker_address == address and nanny.is_alive():
            os.kill(nanny.pid, signal.SIGKILL)


async def _look_after(cluster: Any, patience: int) -> None:
    """End workers whose reports never come, and the cluster where no worker starts any more.

    What a worker sends is lost where bytes that are none of Dask's came between: the scheduler
    waits for the rest of a message. Looks are counted, not seconds: a machine may be suspended.
    """
    looks: dict[frozenset[str], int] = {}
    without = 0
    while without < _MOST_WITHOUT * patience:
        await asyncio.sleep(_LOOK_SECONDS)
        workers = list(cluster.scheduler.workers.values())
        without = 0 if workers else without + 1
        silent = await asyncio.gather(*(_not_run(cluster.scheduler, w) for w in workers))
        looks = {tasks: looks.get(tasks, 0) + 1 for tasks in silent if tasks}
        for worker, tasks in zip(workers, silent, strict=True):
            if looks.get(tasks, 0) >= patience:
                _end_worker(cluster, worker.address)
    print("a Dask worker could not be started again, and no other is left", file=sys.stderr)
    os.killpg(0, signal.SIGKILL)


async def _not_run(scheduler: Any, worker: Any) -> frozenset[str]:
    """The tasks a worker was given, if it says that it runs none; empty where it says nothing."""
    tasks = frozenset(task.key for task in worker.processing)
    try:
        async with asyncio.timeout(_LOOK_SECONDS):
            return frozenset() if await scheduler.get_call_stack(tasks) else tasks
    except Exception:
        return frozenset()


if __name__ == "__main__":
    main()
