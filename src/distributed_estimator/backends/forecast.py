"""Fragments as a device is expected to run them: simulated here, with the errors that it reports.

Gates of a circuit leave the part of every outcome table that `CircuitNoise.kept` says, and the rest
is evenly distributed; measured bits are flipped with the probabilities that the device reports.
That shows how shots scatter, and what they are divided for, before anything runs on the device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from qiskit.transpiler import Target
from qiskit.transpiler.exceptions import TranspilerError

from ..cutting import FloatArray
from ..errors import BackendError, InputError
from ..subexperiments import (
    NO_RUN,
    Backend,
    FragmentExperiment,
    FragmentResult,
    Mitigation,
    Readout,
    ReadoutRun,
    SettingFamily,
    Task,
)
from .calibration import MOST_MISREAD
from .devices import Devices
from .noise import CircuitNoise, circuit_noise, error_of
from .sampler import SamplerBackend
from .statevector import StatevectorBackend
from .templates import make_template

_MOST_SETTINGS = 1 << 16


@dataclass(frozen=True)
class FragmentForecast:
    """What a device is expected to do to a fragment's circuits.

    Attributes:
        noise: Of those that measure at most slots.
        observed: Physical qubit that each local qubit is measured on; -1: it is not.
        slots: The same of each slot.
        flips: Probability that each physical qubit is misread.
    """

    noise: CircuitNoise
    observed: tuple[int, ...]
    slots: tuple[int, ...]
    flips: Mapping[int, float] = field(default_factory=dict)

    @staticmethod
    def of(experiment: FragmentExperiment, target: Target | None) -> FragmentForecast:
        """Of an experiment on a device, to which a circuit of it is transpiled.

        Without a device, and where nothing is run, there are no errors.

        Raises:
            BackendError: The device has fewer qubits, or the circuits cannot be transpiled to it.
            InputError: The fragment has too many settings for a circuit with parameters for all.
        """
        width = experiment.fragment.num_qubits
        if experiment.is_trivial or target is None:
            unknown = (-1,) * width, (-1,) * len(experiment.fragment.slots)
            return FragmentForecast(CircuitNoise.of_all(()), *unknown)
        most = target.num_qubits
        if most is not None and width > most:
            raise BackendError(
                f"a fragment has {width} qubits, and the device {most}: cut more, for instance "
                f"with AutoCut(max_qubits={most}), or take a larger device"
            )
        bases = experiment.layout.bases
        measured = tuple(any(own.measures for own in basis.operations) for basis in bases)
        family = SettingFamily(bases, measured, 0)
        if family.num_settings > _MOST_SETTINGS:
            raise InputError(
                f"fragment {experiment.fragment.index} has {len(bases)} cut ends, too many for its "
                "noise to be foretold: leave the device out"
            )
        try:
            template = make_template(experiment, family, target, defer=False, purify=False)
        except TranspilerError as error:
            raise BackendError(
                f"fragment {experiment.fragment.index} ({width} qubits) cannot be transpiled to "
                f"the device: {error.message}. Cut more where its qubits or couplings are too few; "
                "take another device where it lacks an instruction"
            ) from error
        # Slots' bits are the first, in order.
        parts = [
            sum(own.measures for own in basis.operations) / len(basis.operations)
            for basis, own in zip(bases, measured, strict=True)
            if own
        ]
        noise = circuit_noise(template.circuit, target, dict(enumerate(parts)))
        observed, slots = [-1] * width, [-1] * len(bases)
        for slot, qubit in zip(np.flatnonzero(measured).tolist(), template.measured, strict=False):
            slots[slot] = qubit
        for local, qubit in zip(template.observed, template.measured[len(parts) :], strict=True):
            observed[local] = qubit
        flips = {qubit: _misread(target, qubit) for qubit in template.measured}
        return FragmentForecast(noise, tuple(observed), tuple(slots), flips)


@dataclass(frozen=True)
class ForecastBackend:
    """The local simulator with the errors of a device; see `Backend` and `NoisyBackend`.

    Attributes:
        forecasts: By the index of the fragment.
        simulator: What simulates fragments.
        calibration_shots: Of each circuit that the readout is to be calibrated with.
        factor: The noise factor.
    """

    forecasts: Mapping[int, FragmentForecast]
    simulator: StatevectorBackend = field(default_factory=StatevectorBackend)
    calibration_shots: int = 1
    factor: int = 1

    name = identity = "forecast"
    exact = False
    max_qubits = None

    def mitigated(self, mitigation: Mitigation, factor: int = 1) -> ForecastBackend:
        """The same with `factor` times the noise of gates."""
        shots = mitigation.calibration_shots
        return replace(self, calibration_shots=shots, factor=factor)

    def readout(self, experiment: FragmentExperiment, run: ReadoutRun = NO_RUN) -> Readout:
        """What a calibration is expected to say."""
        own = self.forecasts[experiment.fragment.index]
        qubits = np.array(sorted(own.flips), dtype=np.int64)
        flips = np.array([own.flips[qubit] for qubit in qubits.tolist()])
        shots, shape = self.calibration_shots, (experiment.layout.num_settings, 1)
        shrunk = (flips * shots + 1) / (shots + 2)
        stderrs = np.sqrt(shrunk * (1 - shrunk) / (2 * shots))
        observed, slots = (
            np.tile(np.where(places < 0, -1, np.searchsorted(qubits, places)), shape)
            for places in map(np.asarray, (own.observed, own.slots))
        )
        for family in experiment.layout.families:
            slots[np.ix_(family.numbers, ~np.array(family.measured, dtype=bool))] = -1
        return Readout("forecast", qubits, flips, stderrs, observed, slots)

    def run(self, experiment: FragmentExperiment, task: Task) -> FragmentResult:
        """Draw the outcomes of the task's circuits; see `Backend`."""
        rng = np.random.default_rng(task.seed)
        layout, runs = experiment.layout, experiment.runs_of(task.circuits)
        shots = np.broadcast_to(
            0 if task.shots is None else task.shots, (len(task.angles), *runs.shape)
        )
        tensors, counts = self.simulator.tensors(experiment, task.angles), []
        for number, (group, tensor) in enumerate(zip(experiment.groups, tensors, strict=True)):
            table = self._with_errors(experiment, number, layout.probabilities(tensor))
            table = layout.draw(table, shots[:, number], rng)
            counts.append(group.signed(table * runs[number, layout.setting_of]))
        return FragmentResult(None, tuple(counts))

    def _with_errors(
        self, experiment: FragmentExperiment, number: int, table: FloatArray
    ) -> FloatArray:
        """Probabilities of a group's outcomes, (rows, outcomes, slot outcomes), with all errors."""
        own = self.forecasts[experiment.fragment.index]
        layout, group = experiment.layout, experiment.groups[number]
        kept = own.noise.kept**self.factor
        for family in layout.families:
            part = table[..., family.places]
            even = part.sum(axis=(1, 3), keepdims=True) / (part.shape[1] * part.shape[3])
            part = kept * part + (1 - kept) * even
            for axis, slot in enumerate(np.flatnonzero(family.measured).tolist()):
                flip = own.flips.get(own.slots[slot], 0.0)
                other = np.arange(part.shape[3]) ^ (1 << (sum(family.measured) - 1 - axis))
                part = (1 - flip) * part + flip * part[..., other]
            table[..., family.places] = part
        for qubit, _ in group.basis:
            parities = sum(1 << bit for bit, both in enumerate(group.generators) if qubit in both)
            flip = own.flips.get(own.observed[qubit], 0.0)
            table = (1 - flip) * table + flip * table[:, np.arange(table.shape[1]) ^ parities]
        return table

    def rows_per_task(self, experiment: FragmentExperiment) -> int:
        """As many as the simulator takes."""
        return self.simulator.rows_per_task(experiment)

    def circuits_per_task(self, experiment: FragmentExperiment) -> int | None:
        """All, as for the simulator."""
        return self.simulator.circuits_per_task(experiment)

    def row_bytes(
        self, experiment: FragmentExperiment, angles: FloatArray, shots: int | None
    ) -> int:
        """What the simulator takes, and a further table."""
        return self.simulator.row_bytes(experiment, angles, shots) + experiment.table_bytes()

    def expected_seconds(self, experiment: FragmentExperiment, task: Task) -> float:
        """What the simulator takes."""
        return self.simulator.expected_seconds(experiment, task)


def forecasts_on(
    backend: Backend, experiments: Sequence[FragmentExperiment]
) -> dict[int, FragmentForecast]:
    """By the fragment's index, on the first device of a backend that is wide enough.

    Where there is none, or none that reports errors, there are no errors.

    Raises:
        UnreachableError: A device's service does not say what it is like.
    """
    devices = backend.devices if isinstance(backend, Devices) else [backend]
    targets = [own.target for own in devices if isinstance(own, SamplerBackend)]
    forecasts = {}
    for experiment in experiments:
        width = experiment.fragment.num_qubits
        wide = (t for t in targets if t is not None and (t.num_qubits or width) >= width)
        forecasts[experiment.fragment.index] = FragmentForecast.of(experiment, next(wide, None))
    return forecasts


def _misread(target: Target, qubit: int) -> float:
    return min(error_of(target, "measure", (qubit,)), MOST_MISREAD)
