"""Tasks on workers: policies, the dispatcher, pools."""

from .driver import Assignment, Attempt, Conditions, Stop, Tally, run_tasks
from .journal import Journal
from .messages import Arrays, SlowWorker
from .policies import (
    Batches,
    ByLabel,
    Deadline,
    Eager,
    Fifo,
    LargestInfluenceFirst,
    LongestFirst,
    Policy,
    Retry,
    Speculation,
    TaskSpec,
)
from .pools import Pool, make_pool
from .stragglers import Constant, LogNormal, Pareto, Stragglers
from .worker import one_thread

__all__ = [
    "Arrays",
    "Assignment",
    "Attempt",
    "Batches",
    "ByLabel",
    "Conditions",
    "Constant",
    "Deadline",
    "Eager",
    "Fifo",
    "Journal",
    "LargestInfluenceFirst",
    "LogNormal",
    "LongestFirst",
    "Pareto",
    "Policy",
    "Pool",
    "Retry",
    "SlowWorker",
    "Speculation",
    "Stop",
    "Stragglers",
    "Tally",
    "TaskSpec",
    "make_pool",
    "one_thread",
    "run_tasks",
]


def __dir__() -> list[str]:
    return sorted(__all__)
