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

    make: Any = distributed.LocalCluster
    async with make(
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
        await asyncio.Event().wait()


if __name__ == "__main__":
    main()
