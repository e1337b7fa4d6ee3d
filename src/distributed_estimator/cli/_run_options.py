"""What verbs that run tasks are asked: where these run, in which order, and what is made slow."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from ..execution.messages import SlowWorker
from ..execution.policies import (
    MOST_BUDGET,
    MOST_SECONDS,
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
    TaskOrder,
)
from ..execution.pools import CLUSTERS, POOLS
from ..execution.stragglers import DELAYS, LONGEST, Constant, Delay, LogNormal, Pareto, Stragglers

ORDERS: dict[str, TaskOrder] = {
    "fifo": Fifo(),
    "label": ByLabel(),
    "longest": LongestFirst(),
    "influence": LargestInfluenceFirst(),
}

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


class Finite(click.FloatRange):
    """A range without NaN, which is in any range for click."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number; fails where the text is none or it is out of range."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is not a number.", param, ctx)
        return number


_LARGEST = sys.float_info.max
_NOT_NEGATIVE = Finite(min=0, max=MOST_SECONDS)
_POSITIVE = Finite(min=0, max=MOST_SECONDS, min_open=True)
_COUNT = click.IntRange(min=1)

_POOL = (
    click.option(
        "--pool",
        type=click.Choice(POOLS),
        default="threads",
        show_default=True,
        help="Where tasks run.",
    ),
    click.option(
        "--address",
        metavar="TEXT",
        help="Of a cluster that runs, for dask or ray.  [default: one on this machine]",
    ),
)
_DISPATCH = click.option(
    "--policy",
    type=click.Choice(["eager", "batches"]),
    default="eager",
    show_default=True,
    help="Hand out all tasks at once, or a batch at a time.",
)


def _tasks_per_batch(*names: str) -> Callable[[CommandT], CommandT]:
    return click.option(
        *names,
        "tasks_per_batch",
        type=_COUNT,
        metavar="N",
        help="Tasks in a batch, with --policy batches.",
    )


_POLICY = (
    click.option(
        "--batch-delay",
        type=_NOT_NEGATIVE,
        metavar="SECONDS",
        help="From one batch to the next, with --policy batches.  [default: 0]",
    ),
    click.option(
        "--order",
        type=click.Choice(list(ORDERS)),
        default="fifo",
        show_default=True,
        help="Which tasks come first: as generated, by partition label, the longest, or those "
        "that the result depends on most.",
    ),
    click.option(
        "--in-flight",
        type=_COUNT,
        metavar="N",
        help="Most jobs at a time.  [default: one a worker]",
    ),
    click.option(
        "--speculate/--no-speculate",
        default=False,
        help="Run late tasks a second time; the first result counts.",
    ),
    click.option(
        "--quantile",
        type=Finite(0, 1, min_open=True, max_open=True),
        metavar="Q",
        help="With --speculate: of service times so far, which lateness is measured by.  "
        f"[default: {Speculation().quantile:g}]",
    ),
    click.option(
        "--factor",
        type=Finite(min=1, max=_LARGEST),
        metavar="F",
        help="With --speculate: a task is late after F times that quantile.  "
        f"[default: {Speculation().factor:g}]",
    ),
    click.option(
        "--budget",
        type=Finite(min=0, max=MOST_BUDGET),
        metavar="B",
        help="With --speculate: most second runs, as a fraction of all tasks.  "
        f"[default: {Speculation().budget:g}]",
    ),
    click.option(
        "--restart",
        is_flag=True,
        help="With --speculate: begin late tasks anew where no worker is idle.",
    ),
    click.option(
        "--deadline",
        type=_POSITIVE,
        metavar="SECONDS",
        help="End with the shots that have arrived by then.",
    ),
    click.option(
        "--attempts",
        type=_COUNT,
        metavar="N",
        help=f"Failures after which a task is given up.  [default: {Retry().attempts}]",
    ),
    click.option(
        "--timeout",
        type=_POSITIVE,
        metavar="SECONDS",
        help="After which a running job counts as lost.  [default: 20 times what jobs took so far, "
        "at least a minute, and an hour until some have ended]",
    ),
    click.option(
        "--subexperiments-per-task",
        type=_COUNT,
        metavar="N",
        help="Most subexperiments in a task; another number draws other shots.  "
        "[default: as suits the backend]",
    ),
)
_STRAGGLERS = (
    click.option(
        "--straggler-p",
        type=Finite(0, 1),
        metavar="P",
        help="Inject stragglers, for experiments: the share of subexperiments that are delayed.",
    ),
    click.option(
        "--straggler-delay",
        type=_POSITIVE,
        metavar="SECONDS",
        help="Their delay; the least for pareto, the median for lognormal.",
    ),
    click.option(
        "--straggler-distribution",
        type=click.Choice(list(DELAYS)),
        help="How delays are distributed.  [default: constant]",
    ),
    click.option(
        "--straggler-shape",
        type=Finite(min=0, max=_LARGEST, min_open=True),
        metavar="X",
        help="Tail exponent of pareto, or standard deviation of the logarithm for lognormal.",
    ),
    click.option(
        "--slow-worker",
        type=Finite(min=0, max=LONGEST, max_open=True),
        metavar="SECONDS",
        help="Make the first worker sleep so long before every task.",
    ),
)


def pool_options(command: CommandT) -> CommandT:
    """Adds the choice of a pool to a command that has `--workers`."""
    return add_options(command, _POOL)


def policy_options(command: CommandT) -> CommandT:
    """Adds the parts of a `Policy` to a command."""
    return add_options(
        command, (_DISPATCH, _tasks_per_batch("--tasks-per-batch", "--batch-size"), *_POLICY)
    )


def training_policy_options(command: CommandT) -> CommandT:
    """The same for a command whose `--batch-size` is that of a training step."""
    return add_options(command, (_DISPATCH, _tasks_per_batch("--tasks-per-batch"), *_POLICY))


def straggler_options(command: CommandT) -> CommandT:
    """Adds the injection of stragglers to a command."""
    return add_options(command, _STRAGGLERS)


def pool_of(options: dict[str, Any]) -> tuple[str, str | None]:
    """The name of the pool and the address of its cluster; takes its options out of `options`.

    Raises:
        click.UsageError: An address was given for a pool that has none.
    """
    pool, address = options.pop("pool"), options.pop("address")
    if address is not None and pool not in CLUSTERS:
        raise click.UsageError(
            f"`--address` names a cluster, and the pool is {pool}: add `--pool dask` or "
            "`--pool ray`"
        )
    return pool, address


def policy_of(options: dict[str, Any]) -> Policy:
    """The policy that options come to; takes its options out of `options`.

    Raises:
        click.UsageError: An option was given without the one that it belongs to.
    """
    attempts, timeout = options.pop("attempts"), options.pop("timeout")
    deadline = options.pop("deadline")
    return Policy(
        dispatch=_dispatch(options),
        order=ORDERS[options.pop("order")],
        in_flight=options.pop("in_flight"),
        speculation=_speculation(options),
        deadline=None if deadline is None else Deadline(deadline),
        retry=Retry(**_given(attempts=attempts, timeout=timeout)),
        subexperiments=options.pop("subexperiments_per_task"),
    )


def stragglers_of(options: dict[str, Any]) -> Stragglers | None:
    """The stragglers that options come to; takes its options out of `options`.

    Raises:
        click.UsageError: An option was given without those that it needs, or to no effect.
    """
    p, slow = options.pop("straggler_p"), options.pop("slow_worker")
    delay = _delay(options, injected=p is not None)
    if p is None and slow is None:
        return None
    worker = None if slow is None else SlowWorker(worker=0, delay=slow)
    return Stragglers(p=p or 0.0, delay=delay, slow=worker)


def add_options(command: CommandT, options: Sequence[Callable[[CommandT], CommandT]]) -> CommandT:
    """Adds options to a command, the first to stand first in its help."""
    for option in reversed(options):
        command = option(command)
    return command


def _dispatch(options: dict[str, Any]) -> Eager | Batches:
    kind, size = options.pop("policy"), options.pop("tasks_per_batch")
    delay = options.pop("batch_delay")
    if kind == "batches":
        if size is None:
            raise click.UsageError(
                "`--policy batches` needs the size of a batch: add `--tasks-per-batch N`"
            )
        return Batches(size, **_given(delay=delay))
    _check_alone("--policy batches", {"--tasks-per-batch": size, "--batch-delay": delay})
    return Eager()


def _speculation(options: dict[str, Any]) -> Speculation | None:
    names = ("quantile", "factor", "budget", "restart")
    values = {name: options.pop(name) for name in names}
    if options.pop("speculate"):
        return Speculation(**_given(**values))
    values["restart"] = values["restart"] or None
    _check_alone("--speculate", {f"--{name}": value for name, value in values.items()})
    return None


def _delay(options: dict[str, Any], *, injected: bool) -> Delay:
    names = ("delay", "distribution", "shape")
    delay, kind, shape = (options.pop(f"straggler_{name}") for name in names)
    if not injected:
        values = zip(names, (delay, kind, shape), strict=True)
        _check_alone("--straggler-p", {f"--straggler-{name}": value for name, value in values})
        return Constant(0.0)
    if delay is None:
        raise click.UsageError("`--straggler-p` needs a delay: add `--straggler-delay SECONDS`")
    if kind in (None, "constant"):
        needed = "--straggler-distribution pareto` or `lognormal"
        _check_alone(needed, {"--straggler-shape": shape})
        return Constant(delay)
    if shape is None:
        raise click.UsageError(
            f"`--straggler-distribution {kind}` needs a shape: add `--straggler-shape X`"
        )
    return Pareto(delay, shape) if kind == "pareto" else LogNormal(delay, shape)


def _check_alone(needed: str, values: dict[str, Any]) -> None:
    """Refuses options without the one they belong to."""
    for name, value in values.items():
        if value is not None:
            raise click.UsageError(
                f"`{name}` belongs to `{needed}`: add that, or leave `{name}` out"
            )


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
