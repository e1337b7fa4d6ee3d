"""What is done about a device's noise, and what is known of its readout.

Readout: measured bits are flipped at random before they are read and flipped back, so that each is
wrong with one probability, whatever it was; these are calibrated, and enter the weights of
outcomes. Gates: values at several noise factors are extrapolated to none. docs/mathematics.md has
both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from ..checks import check_kind, check_whole, from_numpy, is_number
from ..cutting import BoolArray, FloatArray, IntArray
from ..errors import InputError
from ..views import changed
from .experiments import FragmentExperiment
from .shots import Accuracy
from .tasks import Arrays, Backend

Extrapolator = Literal["linear", "exponential", "richardson"]
"""linear: a straight line, least squares. richardson: the polynomial through all values.
exponential: a exp(-bλ), least squares; a straight line where values change their sign."""

_MOST_FACTOR, _MOST_COPIES, _MOST_CALIBRATION = 99, 1 << 10, 10**9
"""More of these cost memory and time without end, and tell nothing more."""
_EXTRAPOLATORS = ("linear", "exponential", "richardson")
TWIRLED = 16
"""Copies of a circuit that are twirled, where no number is given."""
_LEAST_PART = 1 / 16
"""Part of the shots of a noise factor at least, in units of the mean."""
_SURE_SIGN = 2.0
"""Standard errors that values are away from zero whose sign is known."""
_FITTING, _FITTED = 50, 1e-10
"""Steps that fit an exponential, and how far the last one may lead."""


@dataclass(frozen=True)
class Zne:
    """Zero-noise extrapolation: two-qubit gates run several times over, values are extrapolated.

    The factors share all shots that options and `run` ask for, and meet a precision together.

    Attributes:
        factors: How many times each gate runs, itself and its inverse in turns: odd numbers from 1
            on, rising, up to 99.
        extrapolator: How values at these factors give one without noise.
    """

    factors: tuple[int, ...] = (1, 3, 5)
    extrapolator: Extrapolator = "linear"

    def __post_init__(self) -> None:
        given: Any = self.factors
        try:
            factors = tuple(_limited("factors", own, 1, _MOST_FACTOR) for own in given)
        except TypeError:
            raise InputError(
                f"`factors` is {given!r}: give odd numbers, such as (1, 3, 5)"
            ) from None
        rising = list(factors) == sorted(set(factors))
        if len(factors) < 2 or factors[0] != 1 or not rising or not all(f % 2 for f in factors):
            raise InputError(
                f"`factors` is {given!r}: give at least two odd numbers from 1 on, each larger "
                "than the one before, such as (1, 3, 5)"
            )
        object.__setattr__(self, "factors", factors)
        if self.extrapolator not in _EXTRAPOLATORS:
            raise InputError(
                f'`extrapolator` is {self.extrapolator!r}: use "linear", "exponential" or '
                '"richardson"'
            )


@dataclass(frozen=True)
class Mitigation:
    """What is done about the noise of a device. Nothing by default.

    Attributes:
        readout: Whether errors of readout are taken out. What the calibration leaves open is in the
            standard errors.
        zne: Zero-noise extrapolation; True: as `Zne()`; None or False: none.
        twirling: Copies of every circuit, with other random Paulis around its two-qubit gates and
            other measured bits flipped, that share its shots. None: 16 where readout is mitigated,
            none otherwise; 0: none, which biases mitigated readout where zeros and ones are not
            misread alike; 2 or more, of which the next lower power of two runs. Gates are twirled
            only where a number is given.
        calibration_shots: Shots of each of the circuits that calibrate the readout, up to 10⁹.
        calibration_hours: Age from which on a calibration is made again.
    """

    readout: bool = False
    zne: Zne | bool | None = None
    twirling: int | None = None
    calibration_shots: int = 1 << 14
    calibration_hours: float = 24.0

    __repr__ = changed

    def __post_init__(self) -> None:
        check_kind("readout", self.readout, bool, "True or False")
        check_kind("zne", self.zne, Zne | bool | None, "a Zne, True, or None")
        zne = Zne() if self.zne is True else self.zne or None
        object.__setattr__(self, "zne", zne)
        if self.twirling is not None:
            _limited("twirling", self.twirling, 0, _MOST_COPIES, ", or None")
        if self.twirling == 1:
            raise InputError(
                "`twirling` is 1, and bits that are flipped in the only copy of a circuit shift "
                "its mean, which no standard error has: give 2 or more, such as "
                f"{TWIRLED}, 0, or None"
            )
        _limited("calibration_shots", self.calibration_shots, 2, _MOST_CALIBRATION)
        hours = from_numpy(self.calibration_hours)
        if not (is_number(hours) and hours > 0):
            raise InputError(f"`calibration_hours` is {hours!r}: give a number above 0")

    @property
    def factors(self) -> tuple[int, ...]:
        """Noise factors at which circuits run."""
        return self.zne.factors if isinstance(self.zne, Zne) else (1,)

    @property
    def copies(self) -> int:
        """How many copies of a circuit are twirled, a power of two; 0: it runs as it is."""
        if self.twirling is None:
            return TWIRLED if self.readout else 0
        return 1 << int(self.twirling).bit_length() - 1 if self.twirling else 0

    def levels(self, sizes: FloatArray | None = None) -> list[Level]:
        """The noise factors, with their parts of the shots.

        Where a value is Σ w y of the values y at all factors, shots in proportion to |w| have the
        least variance.

        Args:
            sizes: |w|, or what it is at most, shape (factors,); None: those of the polynomial, or
                of a straight line, as an exponential's are not known before.
        """
        zne = self.zne if isinstance(self.zne, Zne) else None
        if zne is None:
            return [Level()]
        if sizes is None:
            sizes = np.abs(_weights(zne.factors, zne.extrapolator))
        sizes = np.maximum(sizes, _LEAST_PART * sizes.mean())
        parts = sizes / sizes.sum()
        errors, ends = 1 / np.sqrt(sizes * sizes.sum()), np.cumsum(parts)
        each = zip(zne.factors, parts.tolist(), errors.tolist(), ends.tolist(), strict=True)
        return [Level(*own) for own in each]


def _limited(name: str, given: Any, least: int, most: int, otherwise: str = "") -> int:
    """A whole number from `least` to `most`, checked."""
    value = check_whole(name, from_numpy(given), least, otherwise)
    if value > most:
        raise InputError(f"`{name}` is {value}: give a whole number of at most {most}{otherwise}")
    return value


@dataclass(frozen=True)
class Level:
    """One noise factor of an extrapolation; the only one by default.

    Attributes:
        factor: The noise factor.
        part: Its part of all shots.
        error: Standard error at it, in units of that of the extrapolated value.
        end: Part of the time until a deadline at which it ends.
    """

    factor: int = 1
    part: float = 1.0
    error: float = 1.0
    end: float = 1.0

    def accuracy(self, whole: Accuracy) -> Accuracy:
        """Its part of what is wanted of the extrapolated value.

        Raises:
            InputError: That is no shot of a circuit.
        """
        if self == Level():
            return whole

        def own(shots: int | None) -> int | None:
            return shots and math.floor(shots * self.part + 1e-9)

        if own(whole.shots) == 0:
            raise InputError(
                f"`shots` is {whole.shots}, which all noise factors share, and leaves none for one "
                f"of them: give at least {math.ceil(1 / self.part)}"
            )

        return replace(
            whole,
            shots=own(whole.shots),
            precision=whole.precision * self.error,
            budget=own(whole.budget),
            most=own(whole.most),
            part=self.part * whole.part,
        )


@dataclass(frozen=True, eq=False)
class Readout:
    """How likely each bit that a fragment's circuits measure is misread.

    Bits are flipped with one probability whether they are 0 or 1, each by itself.

    Attributes:
        device: Which device.
        qubits: Physical qubits of the device that are measured, shape (q,).
        flips: Probability that each is misread, shape (q,).
        stderrs: Standard errors of these, as they were calibrated, shape (q,).
        observed: Per setting and local qubit, the place among `qubits` of the one that is measured
            in its place at the end, shape (settings, local qubits); -1: not measured.
        slots: The same for every slot, shape (settings, slots).
        calibrated_at: When the oldest of these was calibrated, ISO-8601, UTC; None: not known.
    """

    device: str
    qubits: IntArray
    flips: FloatArray
    stderrs: FloatArray
    observed: IntArray
    slots: IntArray
    calibrated_at: str | None = None


class ReadoutWork(Protocol):
    """Measures how often qubits are misread, task by task."""

    @property
    def key(self) -> str:
        """Names it among all works there ever are."""

    def run(self, task: Any) -> Arrays:
        """How often, in one job; the first array begins with its shots of both circuits."""

    def check(self, task: Any, arrays: Sequence[object]) -> str | None:
        """Why arrays cannot be the result of a task, in one clause; None where they can."""

    def describe(self, task: Any) -> str:
        """A task for people."""


class ReadoutRun(Protocol):
    """The run that readout is calibrated for, which keeps what it goes by to its end."""

    @property
    def name(self) -> str:
        """Names it among all runs with all seeds; "": there is none."""

    @property
    def place(self) -> int:
        """Of the device in a list, from 0 on: devices of one name draw other random numbers."""

    def at(self, place: int) -> ReadoutRun:
        """The same run, at a place in a list of devices, where it keeps other things."""

    def check(self) -> None:
        """Raises what ends the run, where it was cancelled or its deadline has come."""

    def run(self, work: ReadoutWork, tasks: Sequence[Any]) -> list[Arrays]:
        """Run tasks, which have a `key`; those whose results a journal has do not run.

        Raises:
            DeadlineError: The deadline came first.
            RunCancelledError: The run was cancelled.
            TaskFailedError: Tasks failed as often as the policy allows.
        """

    def kept(self, name: str) -> FloatArray | None:
        """What the run has kept, now or before it was lost; None: nothing."""

    def keep(self, name: str, numbers: FloatArray) -> None:
        """Keep numbers until the run ends, and where it has a journal as long as that."""


@dataclass(frozen=True)
class NoRun:
    """Runs tasks at once, and keeps nothing."""

    name: str = ""
    place: int = 0

    def at(self, place: int) -> NoRun:
        """See `ReadoutRun`."""
        return NoRun(place=place)

    def check(self) -> None:
        """See `ReadoutRun`."""

    def run(self, work: ReadoutWork, tasks: Sequence[Any]) -> list[Arrays]:
        """See `ReadoutRun`."""
        return [work.run(task) for task in tasks]

    def kept(self, name: str) -> FloatArray | None:
        """See `ReadoutRun`."""
        return None

    def keep(self, name: str, numbers: FloatArray) -> None:
        """See `ReadoutRun`."""


NO_RUN = NoRun()


@runtime_checkable
class NoisyBackend(Protocol):
    """A backend that can do something about its noise."""

    def mitigated(self, mitigation: Mitigation, factor: int = 1) -> Backend:
        """The same backend whose circuits are twirled, and their gates run `factor` times over.

        Raises:
            InputError: The backend cannot do what is asked.
        """

    def readout(self, experiment: FragmentExperiment, run: ReadoutRun = NO_RUN) -> Readout:
        """What is known of the readout of an experiment's circuits; calibrated if need be.

        Raises:
            BackendError: It could not be calibrated, or a qubit is misread too often.
            InputError: Circuits of the run were laid out on qubits that they cannot be on now.
        """


def no_noise(name: str) -> InputError:
    """The error of mitigation on a backend that has nothing to mitigate."""
    return InputError(
        f"`mitigation` was set, and the backend {name} has no noise that it could take out: leave "
        "`mitigation` out, or give a sampler of a device as `backend`"
    )


def extrapolated(
    factors: Sequence[int], extrapolator: Extrapolator, values: FloatArray, stderrs: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Values without noise, from those at noise factors, and how they depend on these.

    Args:
        factors: The noise factors.
        extrapolator: How.
        values: At every factor, shape (factors, results…).
        stderrs: Their standard errors, of the same shape; NaN: not known.

    Returns:
        Values, shape (results…), and their derivatives by `values`, of the shape of these, with
        which errors propagate: for all but exponentials they do not depend on the values.

    Example:
        >>> levels = np.array([[0.9], [0.7], [0.5]])
        >>> value, weights = extrapolated((1, 3, 5), "linear", levels, 0 * levels)
        >>> value.round(6), weights[:, 0].round(4)
        (array([1.]), array([ 1.0833,  0.3333, -0.4167]))
    """
    fixed = _weights(factors, extrapolator)
    weights = np.broadcast_to(fixed.reshape(-1, *[1] * (values.ndim - 1)), values.shape)
    if extrapolator == "exponential":
        weights = weights.copy()
        size = np.abs(values) - _SURE_SIGN * np.nan_to_num(stderrs)
        sure = (size > 0).all(axis=0) & (np.abs(np.sign(values).sum(axis=0)) == len(values))
        line = np.einsum("l...,l...->...", weights, values)
        found, slopes, fits = _exponential(np.array(factors, dtype=np.float64), values[:, sure])
        line[sure] = np.where(fits, found, line[sure])
        weights[:, sure] = np.where(fits, slopes, weights[:, sure])
        return line, weights
    return np.einsum("l...,l...->...", weights, values), weights


def _weights(factors: Sequence[int], extrapolator: Extrapolator) -> FloatArray:
    """Those of values at noise factors: of the polynomial through them, or a straight line."""
    degree = len(factors) - 1 if extrapolator == "richardson" else 1
    powers = np.vander(np.array(factors, dtype=np.float64), degree + 1, increasing=True)
    return np.asarray(np.linalg.pinv(powers)[0])


def _exponential(
    factors: FloatArray, values: FloatArray
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Least squares of a exp(-bλ) to values of one sign, shape (factors, results).

    Returns:
        a, its derivatives by the values, and whether there is such a fit.
    """
    largest = np.abs(values).max(axis=0)
    values, column = values / largest, factors[:, None]
    lines = np.stack([np.ones_like(factors), -factors], axis=1)
    logs, b = np.linalg.pinv(lines) @ np.log(np.abs(values))
    a, step = np.sign(values[0]) * np.exp(logs), np.ones((2, values.shape[1]))
    with np.errstate(all="ignore"):  # what does not converge is no fit
        for _ in range(_FITTING):
            slopes, rest = _slopes(a, b, column, values)
            step = np.einsum("ilr,lr->ir", _solved(_squares(slopes), slopes), rest)
            a, b = a + step[0], b + step[1]
        slopes, rest = _slopes(a, b, column, values)
        squares = _squares(slopes)
        # Second derivatives count, too, where the fit leaves something.
        squares[1:] += (rest * column * slopes).sum(axis=1)
        weights = _solved(squares, slopes)[0]
        fits = (np.abs(step) <= _FITTED * (1 + np.abs([a, b]))).all(axis=0)
        fits &= (squares[0] * squares[2] > squares[1] ** 2) & np.isfinite(weights).all(axis=0)
    return largest * a, weights, fits


def _slopes(
    a: FloatArray, b: FloatArray, factors: FloatArray, values: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Derivatives of a exp(-bλ) by both, shape (2, factors, results), and what it leaves."""
    decay = np.exp(-b * factors)
    return np.stack([decay, -a * factors * decay]), values - a * decay


def _squares(slopes: FloatArray) -> FloatArray:
    """Sums of squares and products of both derivatives, shape (3, results)."""
    first, second = slopes
    return np.asarray(np.stack([first**2, first * second, second**2]).sum(axis=1))


def _solved(squares: FloatArray, slopes: FloatArray) -> FloatArray:
    """The inverse of the symmetric matrices of these sums, times derivatives."""
    first, mixed, second = squares
    adjoint = [second * slopes[0] - mixed * slopes[1], first * slopes[1] - mixed * slopes[0]]
    return np.asarray(np.stack(adjoint) / (first * second - mixed**2))
