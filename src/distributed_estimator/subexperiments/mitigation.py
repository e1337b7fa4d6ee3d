"""What is done about a device's noise, and what is known of its readout.

Readout: measured bits are flipped at random before they are read and flipped back, so that each is
wrong with one probability, whatever it was; these are calibrated, and enter the weights of
outcomes. Gates: values at several noise factors are extrapolated to none. docs/mathematics.md has
both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from ..checks import check_kind, check_whole, from_numpy, is_number
from ..cutting import FloatArray, IntArray
from ..errors import InputError
from .experiments import FragmentExperiment
from .tasks import Backend

Extrapolator = Literal["linear", "exponential", "richardson"]
"""linear: a straight line, least squares. richardson: the polynomial through all values.
exponential: a exp(-bλ), least squares; a straight line where values change their sign."""

_EXTRAPOLATORS = ("linear", "exponential", "richardson")


@dataclass(frozen=True)
class Zne:
    """Zero-noise extrapolation: two-qubit gates run several times over, values are extrapolated.

    Attributes:
        factors: How many times each gate runs, itself and its inverse in turns: odd numbers from 1
            on, rising.
        extrapolator: How values at these factors give one without noise.
    """

    factors: tuple[int, ...] = (1, 3, 5)
    extrapolator: Extrapolator = "linear"

    def __post_init__(self) -> None:
        given: Any = self.factors
        try:
            factors = tuple(check_whole("factors", from_numpy(own), 1) for own in given)
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
            misread alike. Gates are twirled only where a number is given.
        calibration_shots: Shots of each of the circuits that calibrate the readout.
        calibration_hours: Age from which on a calibration is made again.
    """

    readout: bool = False
    zne: Zne | bool | None = None
    twirling: int | None = None
    calibration_shots: int = 1 << 14
    calibration_hours: float = 24.0

    def __post_init__(self) -> None:
        check_kind("readout", self.readout, bool, "True or False")
        check_kind("zne", self.zne, Zne | bool | None, "a Zne, True, or None")
        zne = Zne() if self.zne is True else self.zne or None
        object.__setattr__(self, "zne", zne)
        if self.twirling is not None:
            check_whole("twirling", from_numpy(self.twirling), 0, ", or None")
        check_whole("calibration_shots", from_numpy(self.calibration_shots), 2)
        hours = from_numpy(self.calibration_hours)
        if not (is_number(hours) and hours > 0):
            raise InputError(f"`calibration_hours` is {hours!r}: give a number above 0")

    @property
    def factors(self) -> tuple[int, ...]:
        """Noise factors at which circuits run."""
        return self.zne.factors if isinstance(self.zne, Zne) else (1,)


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
    """

    device: str
    qubits: IntArray
    flips: FloatArray
    stderrs: FloatArray
    observed: IntArray
    slots: IntArray


@runtime_checkable
class NoisyBackend(Protocol):
    """A backend that can do something about its noise."""

    def mitigated(self, mitigation: Mitigation, factor: int = 1) -> Backend:
        """The same backend whose circuits are twirled, and their gates run `factor` times over.

        Raises:
            InputError: The backend cannot do what is asked.
        """

    def readout(self, experiment: FragmentExperiment) -> Readout:
        """What is known of the readout of an experiment's circuits; calibrated if need be.

        Raises:
            BackendError: It could not be calibrated, or a qubit is misread too often.
        """
