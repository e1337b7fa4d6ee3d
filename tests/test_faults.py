import contextlib, statistics
import numpy as np, pytest
from faults import *
from distributed_estimator.execution.policies import *
from distributed_estimator.execution.pools import make_pool
import sys, tempfile, time
from pathlib import Path
if __name__ == "__main__":
    from distributed_estimator.execution.pools.processes import ProcessPool
    from distributed_estimator.execution.pools.dask import DaskPool
    from distributed_estimator.execution.pools.ray import RayPool
    name = sys.argv[1]
    pool = {"processes": lambda: ProcessPool(3, memory_limit=512*MEBIBYTE), "dask": lambda: DaskPool(3, memory_limit=640*MEBIBYTE), "ray": lambda: RayPool(3)}[name]()
    folder = Path(tempfile.mkdtemp())
    t=time.perf_counter()
    print(gather(pool, folder, 3), time.perf_counter()-t)
    for fault in sys.argv[2:]:
        for r in range(2):
            t=time.perf_counter()
            d = folder/f"{fault}{r}"; d.mkdir()
            w = Faulty(str(d))
            tasks = [(n, fault if n == 4 else None) for n in range(12)]
            spec=None
            if fault == "late":
                tasks = [(n, {0:"late", 12:"wait"}.get(n)) for n in range(13)]
                spec = Speculation(quantile=.5, factor=2, budget=.01)
            try:
                p = play(pool, w, tasks, Policy(retry=Retry(timeout=1.0 if fault in ("hang","stop") else 60., backoff=.01), speculation=spec), limit=30)
                if p.error: print(fault, "ERROR", repr(p.error)); continue
                assert_each_folded_once(p, range(len(tasks)))
                n = 0 if fault == "late" else 4
                print(fault, "run", round(time.perf_counter()-t,2), "recovery", round(p.folded[n][0][0]-struck(w,n)[0],3), [(a.status, a.cause) for a in p.attempts if a.task==n], p.tally.retries)
            except AssertionError as e:
                print(fault, "ASSERT", e)
            t=time.perf_counter()
            try:
                gather(pool, folder, 3, timeout=40)
            except AssertionError as e: print("gather", e, [(x.pid, x.status()) for x in workers_of(name)])
            print("   gather", round(time.perf_counter()-t,2))
    t=time.perf_counter(); pool.close(); print("close", time.perf_counter()-t)
