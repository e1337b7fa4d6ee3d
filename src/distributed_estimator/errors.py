"""What can go wrong, as one tree.

::

    DistributedEstimatorError
    ├── InputError (ValueError)        something the caller passed
    │   ├── CircuitError               the circuit holds what cannot be estimated
    │   ├── CutError                   labels or a cut search that give no plan
    │   ├── ObservableError            an observable that does not fit
    │   └── PlanTooLargeError          the plan would not fit in memory; nothing was allocated
    ├── BackendError (RuntimeError)    a simulator or sampler failed or refused a circuit
    │   ├── ThrottledError             a device asks to come again later
    │   ├── DeviceLostError            a device is gone, and no other can do its work
    │   ├── UnreachableError           a service cannot be reached, or refuses the account
    │   ├── TaskFailedError            tasks failed as often as they may, all others completed
    │   └── DeadlineError              too little had arrived when the deadline came
    ├── PoolError (RuntimeError)       workers or a cluster that cannot be started or reached
    ├── RunCancelledError              a run was cancelled
    ├── RecordError (ValueError)       a record file that cannot be read or written
    ├── CheckpointError (ValueError)   a checkpoint that cannot be read, written or gone on from
    │   └── DamagedCheckpointError     a checkpoint that is not what was written, and never will be
    ├── TrainingStoppedError           training was asked to stop, and can go on from there
    └── MissingExtraError (ImportError)  an optional dependency is not installed

    PrecisionWarning (UserWarning)     standard errors are larger than asked for

Every message names the value, what was expected and what to do; `named`, `short`,
`shortened` and `close_to` help with that.
"""

from __future__ import annotations

import difflib
import errno
import math
from collections.abc import Iterator, Sequence

_MOST_NAMED = 5
_DEEPEST = 16
_SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EAGAIN}


class PrecisionWarning(UserWarning):
    """Standard errors came out larger than asked for, as the limit of shots is too low."""


class DistributedEstimatorError(Exception):
    """Base of every error this package raises on purpose."""


class InputError(DistributedEstimatorError, ValueError):
    """An argument is out of range, of the wrong shape or inconsistent with another."""


class CircuitError(InputError):
    """The circuit holds an operation that cannot be cut or estimated."""


class CutError(InputError):
    """The labels do not fit the circuit, or no cut satisfies the constraints."""


class ObservableError(InputError):
    """The observable is empty, of the wrong width or not Hermitian."""


class PlanTooLargeError(InputError):
    """The plan needs more memory than the limit; raised before any is taken."""


class BackendError(DistributedEstimatorError, RuntimeError):
    """A backend failed, or cannot run what the plan asks of it."""


class ThrottledError(BackendError):
    """A device is asked too often; try again after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message, retry_after)
        self.retry_after = retry_after

    def __str__(self) -> str:
        return str(self.args[0])


class DeviceLostError(BackendError):
    """A device is gone, and no other can take what it had to do; the message names the causes."""


class UnreachableError(BackendError):
    """A service cannot be reached, or refuses the account; jobs that it has are found again."""


class TaskFailedError(BackendError):
    """Tasks failed as often as the policy allows; the message names them and their causes."""


class DeadlineError(BackendError):
    """Some subexperiments had no shots at all when the deadline came, so there is no value."""


class PoolError(DistributedEstimatorError, RuntimeError):
    """Workers cannot be started, a cluster cannot be reached, or it does not match this process."""


class RunCancelledError(DistributedEstimatorError):
    """A run was cancelled before it was complete."""


class RecordError(DistributedEstimatorError, ValueError):
    """A record file is damaged, of a newer schema, or cannot be written."""


class CheckpointError(DistributedEstimatorError, ValueError):
    """A checkpoint is missing, damaged or of another run, or cannot be written."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint was read, and is not what was written: only a copy of it helps."""


class TrainingStoppedError(DistributedEstimatorError):
    """Training ended early because it was asked to; everything up to then is kept."""


class MissingExtraError(DistributedEstimatorError, ImportError):
    """An optional dependency is missing; the message holds the install command."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(package, extra, purpose)

    def __str__(self) -> str:
        package, extra, purpose = self.args
        return (
            f"{purpose} needs `{package}`, which is not installed: "
            f'run `pip install "distributed-estimator[{extra}]"`'
        )


def named(texts: list[str]) -> str:
    """Clauses for a message, the first five of them and how many more there are.

    Example:
        >>> named([f"task {number}" for number in range(7)])
        'task 0; task 1; task 2; task 3; task 4; and 2 more'
    """
    text = "; ".join(texts[:_MOST_NAMED])
    more = len(texts) - _MOST_NAMED
    return f"{text}; and {more} more" if more > 0 else text


def short(count: int) -> str:
    """A count for a message, however many digits it has.

    Example:
        >>> short(864), short(6**29), short(6**600)
        ('864', '3.68e+22', '7.78e+466')
    """
    if count < 10**9:
        return str(count)
    if count < 10**300:
        return f"{count:.3g}"
    exponent = math.log10(count)  # a float would overflow
    return f"{10 ** (exponent % 1):.2f}e+{math.floor(exponent)}"


def shortened(value: object) -> str:
    """A value as a message shows it, on one line and cut off where it is long.

    Example:
        >>> shortened("ZZ" * 40)
        "'ZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZ..."
    """
    text = " ".join(line.strip() for line in repr(value).split("\n"))
    return text if len(text) <= 60 else f"{text[:57]}..."


def close_to(word: str, known: Sequence[str]) -> str:
    """A hint for a message: what may have been meant, or all there is.

    Example:
        >>> close_to("sheds", ["seeds", "cuts"]), close_to("x", ["seeds", "cuts"])
        ('did you mean `seeds`?', 'use some of seeds, cuts')
    """
    found = difflib.get_close_matches(word, known, n=1, cutoff=0.65)
    return f"did you mean `{found[0]}`?" if found else f"use some of {', '.join(known)}"


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what led to it, as far as it is of interest.

    Example:
        >>> try:
        ...     raise ValueError("why") from KeyError("name")
        ... except ValueError as error:
        ...     [type(own).__name__ for own in chain(error)]
        ['ValueError', 'KeyError']
    """
    cause: BaseException | None = error
    for _ in range(_DEEPEST):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__ or cause.__context__


def is_short(error: BaseException) -> bool:
    """Whether something failed as this process lacks memory, files or the like."""
    return any(
        isinstance(own, MemoryError) or (isinstance(own, OSError) and own.errno in _SHORTAGES)
        for own in chain(error)
    )
