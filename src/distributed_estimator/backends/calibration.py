"""How often a device misreads its qubits: measured, remembered, and measured again in time.

Two circuits measure qubits after nothing, and after an X on each. Errors of that X count as errors
of readout; they are about a thousandth.
"""

from __future__ import annotations

import hashlib
import logging
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote
from uuid import uuid4

import msgspec
import numpy as np
from qiskit import ClassicalRegister, QuantumCircuit
from qiskit.transpiler import Target, generate_preset_pass_manager

from ..cutting import FloatArray, IntArray
from ..errors import BackendError, RecordError
from ..forks import Lock
from ..records.files import read_json, write_json
from ..subexperiments import Arrays, Expected, check_arrays

READOUT_REGISTER = "readout"
_VERSION = 1
_ROUNDED = 0.9
"""Part of the shots that were asked for at least; samplers may round them."""
_LONGEST_NAME = 255
MOST_MISREAD = 0.45
"""Where a bit is misread more often, its mean is scaled up by ten or more."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReadoutCalibration:
    """How often qubits were misread.

    Attributes:
        taken_at: When, with a time zone.
        shots: After nothing, and after an X on each.
        qubits: Physical qubits.
        zeros: Shots that read 1 after nothing, one number a qubit.
        ones: Shots that read 0 after an X, one number a qubit.
    """

    taken_at: datetime
    shots: tuple[int, int]
    qubits: tuple[int, ...]
    zeros: tuple[int, ...]
    ones: tuple[int, ...]

    def __post_init__(self) -> None:
        if not (
            self.taken_at.tzinfo is not None
            and min(self.shots) > 0
            and len(self.qubits) == len(self.zeros) == len(self.ones)
            and min(self.qubits, default=0) >= 0
            and all(0 <= count <= self.shots[0] for count in self.zeros)
            and all(0 <= count <= self.shots[1] for count in self.ones)
        ):
            raise ValueError("numbers that no calibration gives")

    def rates(self, qubit: int) -> tuple[float, float]:
        """Probability that a bit is misread if 0 and 1 are as likely, and its standard error.

        The standard error is that of rates with a misread and a good shot more, as none of n shots
        does not say that there is no error.
        """
        place = self.qubits.index(qubit)
        misread, shots = np.array([self.zeros[place], self.ones[place]]), np.array(self.shots)
        shrunk = (misread + 1) / (shots + 2)
        variance = (shrunk * (1 - shrunk) / shots).sum() / 4
        return float((misread / shots).mean()), float(np.sqrt(variance))


@dataclass(frozen=True)
class _File:
    version: int
    device: str
    calibrations: list[ReadoutCalibration]


@dataclass(frozen=True)
class CalibrationTask:
    """Some circuits of a calibration, which are one job.

    Attributes:
        key: Hash of its run and its name.
        name: For people, and what its seed is of.
        qubits: Physical qubits.
        start: Number of its first circuit; even ones are after nothing, odd ones after an X.
        count: How many circuits.
        shots: Of each.
    """

    key: str
    name: str
    qubits: tuple[int, ...]
    start: int
    count: int
    shots: int

    @property
    def seed(self) -> int:
        """Of everything random in it."""
        return int(hashlib.sha256(self.name.encode()).hexdigest(), 16)

    @property
    def flipped(self) -> list[bool]:
        """Whether each circuit is after an X."""
        return [number % 2 > 0 for number in range(self.start, self.start + self.count)]


class Measuring(Protocol):
    """A backend that can measure how often its qubits are misread."""

    def misread(self, task: CalibrationTask) -> Arrays:
        """Shots of both kinds and the time; then shots misread of each qubit, of both kinds."""


@dataclass(frozen=True, eq=False)
class CalibrationWork:
    """Measures how often the qubits of a backend are misread; see `ReadoutWork`."""

    backend: Measuring
    device: str
    key: str = field(default_factory=lambda: uuid4().hex)

    def run(self, task: CalibrationTask) -> Arrays:
        """See `Measuring.misread`."""
        return self.backend.misread(task)

    def check(self, task: CalibrationTask, arrays: Sequence[object]) -> str | None:
        """Why arrays cannot be the result of a task, in one clause; None where they can."""
        qubits = (len(task.qubits),)
        expected = [Expected("shots and times", (3,)), *[Expected("misread shots", qubits)] * 2]
        wrong = check_arrays(arrays, expected)
        if wrong is None:
            shots, *misread = map(np.asarray, arrays)
            for taken, kind, own in zip(shots, (False, True), misread, strict=False):
                if (taken > 0) != (kind in task.flipped) or not ((own >= 0) & (own <= taken)).all():
                    return "its shots are not those of the task, or fewer than are misread"
        return wrong

    def describe(self, task: CalibrationTask) -> str:
        """A task for people."""
        return f"the calibration of the readout of {self.device}"


def calibration_tasks(
    run: str, name: str, qubits: Sequence[int], pieces: Sequence[int], circuits: int
) -> list[CalibrationTask]:
    """Both circuits once for each piece of the shots, divided into jobs of so many circuits."""
    tasks: list[CalibrationTask] = []
    for start in range(0, 2 * len(pieces), circuits):
        count = min(circuits, 2 * len(pieces) - start)
        own = name if not start else f"{name} circuits {start} {count}"
        key = hashlib.sha256(f"{run} {own}".encode()).hexdigest()[:32]
        # All with as many shots: samplers may refuse others, or repeat their random numbers.
        tasks.append(CalibrationTask(key, own, tuple(qubits), start, count, pieces[0]))
    return tasks


def calibration_of(
    qubits: Sequence[int], results: Sequence[Sequence[FloatArray]]
) -> ReadoutCalibration:
    """What the tasks of a calibration found, all together."""
    shots, zeros, ones = (
        np.sum([own[part] for own in results], axis=0).astype(np.int64) for part in range(3)
    )
    taken_at = datetime.fromtimestamp(min(own[0][2] for own in results), UTC)
    taken = int(shots[0]), int(shots[1])
    return ReadoutCalibration(
        taken_at, taken, tuple(qubits), tuple(zeros.tolist()), tuple(ones.tolist())
    )


@dataclass(frozen=True)
class Misreading:
    """How likely a qubit is misread, its standard error, and when it was measured, since 1970."""

    flips: float
    stderr: float
    taken_at: float


class Calibrations:
    """What is known of a device's readout, calibrated where it is not, or no longer.

    Args:
        device: Its name.
        kept_as: What no other device is known as, under which other processes find what is known:
            in `distributed-estimator/readout` in the user's cache (`XDG_CACHE_HOME`). None: it is
            not kept.
    """

    def __init__(self, device: str, kept_as: str | None) -> None:
        self.device = device
        self.path = None if kept_as is None else _path_of(kept_as)
        self._known: list[ReadoutCalibration] = []
        self._lock = Lock()

    def rates(
        self,
        qubits: Sequence[int],
        hours: float,
        shots: int,
        calibrate: Callable[[Sequence[int], int], ReadoutCalibration],
        check: Callable[[], None] = lambda: None,
    ) -> dict[int, Misreading]:
        """How likely some qubits are misread.

        Args:
            qubits: Physical qubits.
            hours: Age from which on a calibration is not used.
            shots: Of each circuit; calibrations of fewer are not used.
            calibrate: Measures qubits; it is also given how many calibrations there were before.
            check: Called while another thread calibrates; it may raise.

        Raises:
            BackendError: A qubit is misread nearly half of the time.
        """
        with self._lock.patiently(check):
            newest = self._newest(hours, shots)
            missing = [qubit for qubit in qubits if qubit not in newest]
            if missing and self.path is not None:
                self._known += [own for own in self._read() if own not in self._known]
                newest = self._newest(hours, shots)
                missing = [qubit for qubit in qubits if qubit not in newest]
            if missing:
                fresh = calibrate(missing, len(self._known))
                _log.info(
                    "readout of %s calibrated: qubits %s, 2 circuits of %d shots, misread by %s",
                    self.device,
                    ", ".join(map(str, missing)),
                    fresh.shots[0],
                    ", ".join(f"{fresh.rates(qubit)[0]:.4f}" for qubit in missing),
                )
                self._known.append(fresh)
                newest.update(dict.fromkeys(missing, fresh))
                self._write()
        found = {
            qubit: Misreading(*newest[qubit].rates(qubit), newest[qubit].taken_at.timestamp())
            for qubit in qubits
        }
        for qubit, own in found.items():
            if own.flips > MOST_MISREAD:
                raise BackendError(
                    f"qubit {qubit} of {self.device} is misread in {own.flips:.0%} of shots, so "
                    "that next to nothing is known of its outcome: take another device, or fewer "
                    "qubits a fragment so that it is avoided"
                )
        return found

    def _newest(self, hours: float, shots: int) -> dict[int, ReadoutCalibration]:
        """The last calibration of every qubit, if it is young and has shots enough."""
        now = datetime.now(UTC)
        young = [c for c in self._known if timedelta(0) <= now - c.taken_at < _hours(hours)]
        good = [own for own in young if min(own.shots) >= _ROUNDED * shots]
        ordered = sorted(good, key=lambda calibration: calibration.taken_at)
        return {qubit: own for own in ordered for qubit in own.qubits}

    def _read(self) -> list[ReadoutCalibration]:
        """What earlier processes measured; nothing where the file is missing or damaged."""
        path = self.path
        try:
            if path is None or not path.exists():
                return []
            found = msgspec.convert(read_json(path), _File)
        except (OSError, RecordError, msgspec.ValidationError) as error:
            reason = str(error)
        else:
            if (found.version, found.device) == (_VERSION, self.device):
                return found.calibrations
            reason = f"it is version {found.version} of {found.device}"
        warnings.warn(
            f"the calibration of the readout of {self.device} in `{path}` cannot be used: {reason}."
            " It is measured again, and the file replaced",
            stacklevel=2,
        )
        return []

    def _write(self) -> None:
        """Keep what may be of use, to those that ask for other ages or numbers of shots too."""
        if self.path is None:
            return
        kept = [own for own in self._known if not self._is_outdone(own)]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, msgspec.to_builtins(_File(_VERSION, self.device, kept)))
        except (OSError, RecordError) as error:
            _log.warning("the calibration is not kept: %s", error)

    def _is_outdone(self, old: ReadoutCalibration) -> bool:
        """Whether all of its qubits were measured later, with no fewer shots."""
        return set(old.qubits) <= {
            qubit
            for own in self._known
            if own.taken_at > old.taken_at and min(own.shots) >= min(old.shots)
            for qubit in own.qubits
        }


def calibration_circuits(qubits: Sequence[int], target: Target | None) -> list[QuantumCircuit]:
    """Circuits that measure physical qubits after nothing, and after an X on each."""
    device = target is not None and target.build_coupling_map() is not None
    places = range(len(qubits)) if device else qubits
    circuits = []
    for flipped in (False, True):
        circuit = QuantumCircuit(max(places) + 1)
        circuit.add_register(ClassicalRegister(len(qubits), READOUT_REGISTER))
        if flipped:
            circuit.x(places)
        circuit.measure(places, range(len(qubits)))
        if target is not None:
            layout = [*qubits] if device else None
            circuit = generate_preset_pass_manager(
                0, target=target, seed_transpiler=0, initial_layout=layout
            ).run(circuit)
        circuits.append(circuit)
    return circuits


def misread(bits: Any, flipped: bool) -> tuple[int, IntArray]:
    """Shots, and how many of each qubit are not what was prepared, of a `BitArray`."""
    packed = bits.array.reshape(-1, bits.array.shape[-1])
    read = np.unpackbits(packed[:, ::-1], axis=-1, bitorder="little")[:, : bits.num_bits]
    ones = read.sum(axis=0, dtype=np.int64)
    return len(read), len(read) - ones if flipped else ones


def _hours(hours: float) -> timedelta:
    return timedelta(hours=min(hours, 1e6))


def _path_of(device: str) -> Path | None:
    """The file of a device's calibrations; None: there cannot be one."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    name = f"{quote(device, safe='')}.json"
    try:
        folder = Path(base).expanduser()
    except RuntimeError as error:  # no home folder
        _log.warning("calibrations of %s are not kept: %s", device, error)
        return None
    if len(name) > _LONGEST_NAME:
        _log.warning("calibrations of %s are not kept: its name is too long", device)
        return None
    return folder / "distributed-estimator" / "readout" / name
