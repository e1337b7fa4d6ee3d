"""Fragments on any Qiskit sampler: Aer, a noise model, a QPU."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, get_args

import numpy as np
from qiskit.circuit import pauli_twirl_2q_gates
from qiskit.primitives import BaseSamplerV2
from qiskit.transpiler import Target
from qiskit.transpiler.exceptions import TranspilerError

from ..checks import check_kind, check_whole, from_numpy
from ..cutting import FloatArray
from ..errors import BackendError, DistributedEstimatorError, InputError
from ..forks import Lock
from ..records import RecordWriter
from ..subexperiments import (
    NO_RUN,
    Arrays,
    FragmentExperiment,
    FragmentResult,
    JobBook,
    Mitigation,
    Readout,
    ReadoutRun,
    SettingFamily,
    Task,
    content_of,
    kept_as,
)
from .calibration import (
    READOUT_REGISTER,
    Calibrations,
    CalibrationTask,
    CalibrationWork,
    ReadoutCalibration,
    calibration_circuits,
    calibration_of,
    calibration_tasks,
    misread,
)
from .family_pubs import FamilyPub, balanced_flips, bound, copies_of, pieces_of
from .jobs import JobRequest, Jobs
from .modes import ExecutionMode, Mode
from .samplers import (
    as_text,
    backend_of,
    device_of,
    is_noiseless,
    known_as,
    limit_of,
    name_of,
    on_one_thread,
)
from .seeds import comes_from, draws_of, repeats_by_shots, repeats_within_jobs, reseeded
from .services import options_text, read_from, service_of, without_secrets
from .templates import Template, make_template

_log = logging.getLogger(__name__)

_CIRCUITS_PER_JOB = 512
_MOST_TEMPLATES = 1024
_MOST_ANCILLAS = 8
"""In the place of a circuit's own measurements and resets, where Aer could run them as they are."""
_TWIRLS = 1
"""Tells random numbers of twirling from others of a task's seed."""


class SamplerBackend:
    """Runs the settings of fragments as PUBs of a sampler.

    A fragment's settings that measure at the same slots are one PUB; a task is one job. Simulators
    that take a seed run as copies with a new one for every task, so that tasks are independent and
    reproducible. The results of others show whether they repeat their random numbers (`seeds`).

    Args:
        sampler: Any `BaseSamplerV2`. Where it names its backend, circuits are transpiled to it.
        defer_measurements: Whether measurements inside a circuit are moved to its end by ancilla
            qubits (on Aer up to eight of the circuit's own, and of its resets; more run as they
            are). None: for noiseless simulators of circuits, which are far faster so or know no
            other way; never where it would matter to noise, hardware or its number of
            qubits.
        circuits_per_job: Circuits (settings at bindings) a job holds at most. What simulators
            draw depends on it.
        shots_per_circuit: Shots a circuit takes at most; one that needs more is sent several times.
            None: as many as the backend says (`max_shots`), or any number.
        mode: "batch" or "session": jobs of a sampler of `qiskit-ibm-runtime` are sent in one, which
            is opened with the first job and closed with the estimator. None: as the sampler is.

    Raises:
        InputError: `sampler` is none, a number is not a positive whole number, or the sampler
            cannot send its jobs in this mode.
        UnreachableError: Its service does not say what the device takes.
    """

    exact = False

    def __init__(
        self,
        sampler: BaseSamplerV2,
        defer_measurements: bool | None = None,
        circuits_per_job: int = _CIRCUITS_PER_JOB,
        shots_per_circuit: int | None = None,
        mode: ExecutionMode | None = None,
    ) -> None:
        check_kind("sampler", sampler, BaseSamplerV2, "an instance of any Qiskit BaseSamplerV2")
        self.sampler = sampler
        device, most, max_shots = self._read(
            lambda: (
                device_of(sampler),
                limit_of(sampler, "max_experiments"),
                limit_of(sampler, "max_shots"),
            )
        )
        circuits_per_job = check_whole("circuits_per_job", circuits_per_job)
        self.circuits_per_job = min(circuits_per_job, most or circuits_per_job)
        if shots_per_circuit is None:
            shots_per_circuit = max_shots
        self.shots_per_circuit = (
            None
            if shots_per_circuit is None
            else check_whole("shots_per_circuit", from_numpy(shots_per_circuit), 1, ", or None")
        )
        self.defer_measurements = (
            is_noiseless(sampler) and device is None
            if defer_measurements is None
            else defer_measurements
        )
        self.mode = _checked_mode(mode, sampler)
        self._mitigation, self._factor = Mitigation(), 1
        self._templates: dict[tuple[object, ...], Template] = {}
        self._layouts: dict[str, tuple[int, ...]] = {}
        """Qubits of the device that experiments of a run that goes on began at, by their keys."""
        self._lock = Lock()
        self._calibrations = Calibrations(self._device, known_as(device, self._device))
        self._mode, self._jobs = Mode(mode), Jobs()

    @property
    def name(self) -> str:
        """Package and class of the sampler, and its device or that it has a noise model."""
        noisy = comes_from(self.sampler, "qiskit_aer") and not is_noiseless(self.sampler)
        noise = "(noise model)" if noisy and device_of(self.sampler) is None else ""
        return f"{name_of(self.sampler)}{noise}"

    @property
    def identity(self) -> str:
        """Hash of the class of the sampler, its device, and all options, noise included.

        Objects without readable content are compared by their `repr`, which may differ between two
        equal samplers, but hardly agree between two that differ.
        """
        sampler, backend = self.sampler, backend_of(self.sampler)
        content = [
            *([self._copies, self._twirls_gates, self._factor] if self._is_mitigated else []),
            f"{type(sampler).__module__}.{type(sampler).__qualname__}",
            self.defer_measurements,
            self.shots_per_circuit,
            getattr(backend, "name", None),
            getattr(backend, "options", None),
            getattr(sampler, "options", None),
        ]
        return hashlib.sha256(as_text(content).encode()).hexdigest()[:32]

    @property
    def max_qubits(self) -> int | None:
        """Qubits of the device; None for simulators of circuits."""
        found: int | None = self._read(lambda: getattr(device_of(self.sampler), "num_qubits", None))
        return found

    @property
    def target(self) -> Target | None:
        """What circuits are transpiled to; None: they run as they are.

        Raises:
            UnreachableError: The device's service does not say.
        """
        found: Target | None = self._read(lambda: getattr(backend_of(self.sampler), "target", None))
        return found

    def _read(self, read: Callable[[], Any]) -> Any:
        """What the device says of itself; errors of its client name no account."""
        return read_from(self.sampler, backend_of(self.sampler), read)

    def rows_per_task(self, experiment: FragmentExperiment) -> int:
        """As many as a job holds."""
        return max(1, self._circuits_per_task // max(1, experiment.num_circuits))

    def circuits_per_task(self, experiment: FragmentExperiment) -> int | None:
        """As many as a job holds, where a binding has more."""
        most = self._circuits_per_task
        return most if experiment.num_circuits > most else None

    def row_bytes(
        self, experiment: FragmentExperiment, angles: FloatArray, shots: int | None
    ) -> int:
        """The bits of all shots, and tables of their outcomes; no state vector."""
        bits = experiment.fragment.num_qubits + len(experiment.fragment.slots)
        runs = min(experiment.num_circuits, self._circuits_per_task) * (shots or 0)
        return 16 * runs * bits + experiment.table_bytes()

    def expected_seconds(self, experiment: FragmentExperiment, task: Task) -> float:
        """Long enough to be a job of its own."""
        return 1.0

    @property
    def _copies(self) -> int:
        return self._mitigation.copies

    @property
    def _twirls_gates(self) -> bool:
        return bool(self._mitigation.twirling)

    @property
    def _is_mitigated(self) -> bool:
        """Whether circuits are other than they are without mitigation."""
        return self._copies > 0 or self._factor > 1

    @property
    def _device(self) -> str:
        """What is calibrated, in characters that can be written."""
        found = device_of(self.sampler)
        name = self.name if found is None else str(found.name)
        return name.encode(errors="backslashreplace").decode()

    @property
    def calibration_path(self) -> Path | None:
        """The file of what is known of the device's readout; None: it is known here alone."""
        return self._calibrations.path

    @property
    def _circuits_per_task(self) -> int:
        return max(1, self.circuits_per_job // max(1, self._copies))

    def mitigated(self, mitigation: Mitigation, factor: int = 1) -> SamplerBackend:
        """The same sampler, its circuits twirled, and their gates run `factor` times over.

        Circuits are transpiled once for all. Gates are twirled where they are cx, cz, ecr or iswap.

        Raises:
            InputError: Measurements are deferred to ancilla qubits, whose readout would be another.
        """
        check_whole("factor", from_numpy(factor), 1)
        if factor % 2 == 0:
            raise InputError(f"`factor` is {factor}: give an odd number")
        if mitigation.readout and self.defer_measurements:
            raise InputError(
                f"errors of readout cannot be taken out of results of {self.name}, as measurements "
                "inside circuits are deferred to ancilla qubits: leave `readout` out of "
                "Mitigation; or, where the sampler takes measurements inside circuits, pass "
                "backend=SamplerBackend(sampler, defer_measurements=False)"
            )
        found = object.__new__(type(self))
        found.__dict__.update(self.__dict__, _mitigation=mitigation, _factor=factor)
        return found

    def readout(self, experiment: FragmentExperiment, run: ReadoutRun = NO_RUN) -> Readout:
        """What is known of the readout of an experiment's circuits; calibrated if need be.

        A calibration is two circuits that measure the qubits that those of the experiment do, after
        nothing and after an X on each. It is remembered by the backend, and that of a device of a
        service in the user's cache as well (`Calibrations`). A run that goes on keeps to the
        calibration and to the qubits that it began with.

        Raises:
            BackendError: The sampler failed, or a qubit is misread nearly half of the time.
            InputError: Results in the journal are those of qubits that circuits cannot have now.
        """
        layout, fragment = experiment.layout, experiment.fragment
        observed = np.full((layout.num_settings, fragment.num_qubits), -1, dtype=np.intp)
        slots = np.full((layout.num_settings, len(fragment.slots)), -1, dtype=np.intp)
        for family, template in self._laid_out(experiment, run):
            count = sum(family.measured)
            where = np.ix_(family.numbers, np.flatnonzero(family.measured))
            slots[where] = template.measured[:count]
            where = np.ix_(family.numbers, np.array(template.observed, dtype=np.intp))
            observed[where] = template.measured[count:]
        qubits = np.unique(np.concatenate([observed.ravel(), slots.ravel()]))
        qubits = qubits[qubits >= 0]
        found = self._rates(qubits.tolist(), run)
        observed, slots = (
            np.where(own < 0, -1, np.searchsorted(qubits, own)) for own in (observed, slots)
        )
        flips, stderrs, times = np.array(found, dtype=np.float64).reshape(-1, 3).T
        oldest = datetime.fromtimestamp(times.min(), UTC) if times.size else None
        at = None if oldest is None else oldest.isoformat(timespec="milliseconds")
        return Readout(self._device, qubits, flips, stderrs, observed, slots, at)

    def _laid_out(
        self, experiment: FragmentExperiment, run: ReadoutRun
    ) -> list[tuple[SettingFamily, Template]]:
        """Circuits of a fragment, on the qubits of the device that they had before in a run."""
        name = f"qubits of {experiment.key}"
        kept, (found, qubits) = run.kept(name), self._measuring(experiment)
        if kept is None:
            run.keep(name, qubits)
        elif not np.array_equal(kept, qubits):
            begun = kept[: int(kept[-1])].astype(int).tolist()
            with self._lock:
                self._layouts[experiment.key] = tuple(begun)
                for key in [own for own in self._templates if own[0] == experiment.key]:
                    del self._templates[key]
            cause: BackendError | None = None
            try:
                found, qubits = self._measuring(experiment)
            except BackendError as error:  # qubits or couplings do not work any more
                cause = error
            if cause is not None or not np.array_equal(kept, qubits):
                raise InputError(
                    f"{self._device} was calibrated again since the journal was begun, and "
                    "circuits cannot be laid out on the same qubits any more, whose errors of "
                    "readout are those of the results in it: give a new journal, which sends all "
                    "jobs again"
                ) from cause
            _log.info("fragment %d stays on qubits %s", experiment.fragment.index, begun)
        return found

    def _measuring(
        self, experiment: FragmentExperiment
    ) -> tuple[list[tuple[SettingFamily, Template]], FloatArray]:
        """Circuits of a fragment; and the qubits that they begin at and measure, and how many."""
        families = filter(experiment.runs, experiment.layout.families)
        found = [(family, self._template(experiment, family)) for family in families]
        begun = found[0][1].layout or () if found else ()
        measured = [qubit for _, template in found for qubit in template.measured]
        return found, np.array([*begun, *measured, len(begun)], dtype=np.float64)

    def _rates(self, qubits: Sequence[int], run: ReadoutRun) -> list[FloatArray]:
        """How likely qubits are misread, standard errors and times, as a run began with them."""
        shots, hours = self._mitigation.calibration_shots, self._mitigation.calibration_hours
        names = [f"misreading of qubit {qubit} by {shots} shots" for qubit in qubits]
        kept = [run.kept(name) for name in names]
        missing = [qubit for qubit, own in zip(qubits, kept, strict=True) if own is None]

        def calibrate(qubits: Sequence[int], earlier: int) -> ReadoutCalibration:
            return self._calibrate(qubits, earlier, run)

        known = self._calibrations
        fresh = known.rates(missing, hours, shots, calibrate, run.check) if missing else {}
        found = []
        for qubit, name, own in zip(qubits, names, kept, strict=True):
            if own is None:
                own = np.array(astuple(fresh[qubit]))
                run.keep(name, own)
            found.append(own)
        return found

    def _calibrate(
        self, qubits: Sequence[int], earlier: int, run: ReadoutRun
    ) -> ReadoutCalibration:
        """Measure how often qubits are misread, for the time after some `earlier` ones."""
        shots = self._mitigation.calibration_shots
        name = f"readout {self._device} {qubits} {shots} {earlier}"
        if run.place:  # simulators of one name would draw the same
            name += f" device {run.place}"
        pieces = pieces_of(shots, self.shots_per_circuit)
        tasks = calibration_tasks(run.name, name, qubits, pieces, self.circuits_per_job)
        results = run.run(CalibrationWork(self, self.name), tasks)
        return calibration_of(qubits, results)

    def misread(self, task: CalibrationTask) -> Arrays:
        """Measure how often qubits are misread, in one job; see `CalibrationWork`.

        Raises:
            BackendError: The sampler failed.
        """
        both = calibration_circuits(task.qubits, self.target)
        pubs = [(both[own], None, task.shots) for own in task.flipped]
        try:
            results = self._send(
                pubs, task.seed, lambda: f"{self.identity} {task.key}", task.name
            )()
            found = np.zeros((2, 1 + len(task.qubits)))
            for flipped, result in zip(task.flipped, results, strict=True):
                taken, wrong = misread(result.data[READOUT_REGISTER], flipped)
                found[int(flipped)] += [taken, *wrong]
        except DistributedEstimatorError:
            raise
        except Exception as error:
            said, cause = self._told(error)
            raise BackendError(
                f"the sampler {self.name} failed to calibrate its readout: {said}"
            ) from cause
        now = datetime.now(UTC).timestamp()
        return np.array([*found[:, 0], now]), found[0, 1:], found[1, 1:]

    def run(self, experiment: FragmentExperiment, task: Task) -> FragmentResult:
        """Run the task's circuits as one job; see `Backend`.

        Raises:
            BackendError: The sampler failed, or cannot run the circuits.
        """
        try:
            pubs = list(self._pubs(experiment, task))
            results = self._results(experiment, task, pubs)
            tables = [
                np.zeros((len(task.angles), group.num_outcomes, experiment.layout.num_outcomes))
                for group in experiment.groups
            ]
            for pub, result in zip(pubs, results, strict=True):
                pub.count(experiment, result.data, tables)
            counts = (g.signed(t) for g, t in zip(experiment.groups, tables, strict=True))
            return FragmentResult(None, tuple(counts), draws_of(results))
        except DistributedEstimatorError:
            raise
        except Exception as error:
            said, cause = self._told(error)
            raise BackendError(
                f"the sampler {self.name} failed on fragment {experiment.fragment.index} "
                f"({experiment.fragment.num_qubits} qubits): {said}. If it lacks a gate, "
                "transpile the circuit first; if it refuses measurements inside a circuit, pass "
                "backend=SamplerBackend(sampler, defer_measurements=True)"
            ) from cause

    def _told(self, error: Exception) -> tuple[object, Exception | None]:
        """What an error says, and itself, where neither can name an account."""
        return (without_secrets(error), None) if self.has_service else (error, error)

    @property
    def has_service(self) -> bool:
        """Whether jobs go to a service that keeps them; see `ServiceBackend`."""
        return service_of(self.sampler, backend_of(self.sampler)) is not None

    def with_jobs(self, book: JobBook | None, log: RecordWriter | None) -> Self:
        """The same with jobs in a book of the caller's; see `ServiceBackend`."""
        if not self.has_service:
            return self
        fresh = object.__new__(type(self))
        fresh.__dict__.update(self.__dict__)  # templates are the same
        fresh._mode, fresh._jobs = Mode(self.mode), Jobs(book, log)
        return fresh

    def close(self) -> None:
        """Close the batch or session that was opened; the next job opens another."""
        self._mode.close()

    def _results(
        self, experiment: FragmentExperiment, task: Task, pubs: Sequence[FamilyPub]
    ) -> list[Any]:
        """Results of one job, or of one for each number of shots where it has to be."""
        if not pubs:
            return []

        def send(own: Sequence[int], place: int, shots: int | None) -> Callable[[], list[Any]]:
            def name() -> str:
                return self._name_of(experiment, task) + (f" with {shots} shots" if shots else "")

            contents = [pubs[n].content for n in own]
            return self._send(contents, task.seed + place, name, task.key, shots)

        numbers = sorted({pub.shots for pub in pubs})
        if len(numbers) == 1 or not repeats_by_shots(self.sampler):
            try:
                wait = send(range(len(pubs)), 0, None)
            except DistributedEstimatorError:
                raise
            except ValueError as error:  # not of what came back: that has been paid for
                if len(numbers) == 1 or "shots" not in str(error).lower():
                    raise
            else:
                return wait()
        places = [[n for n, pub in enumerate(pubs) if pub.shots == number] for number in numbers]
        waits = [send(own, n, numbers[n]) for n, own in enumerate(places)]
        found: dict[int, Any] = {}
        for own, wait in zip(places, waits, strict=True):
            found.update(zip(own, wait(), strict=True))
        return [found[n] for n in range(len(pubs))]

    def _send(
        self,
        contents: Sequence[tuple[Any, ...]],
        seed: int,
        name: Callable[[], str],
        task: str,
        shots: int | None = None,
    ) -> Callable[[], list[Any]]:
        """Send a job, or find it at its service; what is returned waits for its results.

        Args:
            contents: The PUBs as a sampler takes them.
            seed: Of a sampler that takes one.
            name: Gives all that determines the results, by which a service's job is found again.
            task: What it is for, in records.
            shots: Of all PUBs, for samplers that take one number a job; None: each has its own.

        Raises:
            UnreachableError: A service cannot be reached.
            ValueError: The sampler refuses the circuits; nothing was sent.
        """
        if not self.has_service:
            return self._run_here(contents, seed, shots)
        backend = backend_of(self.sampler)
        request = JobRequest(name(), task, contents, shots, options_text(self.sampler))
        return self._jobs.run(lambda: self._sampler_of(seed), backend, request, self._mode)

    def _sampler_of(self, seed: int) -> BaseSamplerV2:
        return on_one_thread(reseeded(self.sampler, seed))

    def _run_here(
        self, contents: Sequence[tuple[Any, ...]], seed: int, shots: int | None = None
    ) -> Callable[[], list[Any]]:
        """Run PUBs on a local sampler; one job each where a job would repeat its random numbers."""
        alone = repeats_within_jobs(self.sampler)
        parts = [[own] for own in contents] if alone else [contents]
        options = {} if shots is None else {"shots": shots}
        first = self._local(seed).run(parts[0], **options)

        def wait() -> list[Any]:
            found = list(first.result())
            for place, part in enumerate(parts[1:], 1):
                other = int(np.random.SeedSequence((seed, place)).generate_state(1)[0])
                found += self._local(other).run(part, **options).result()
            return found

        return wait

    def _local(self, seed: int) -> BaseSamplerV2:
        return self._mode.applied(self._sampler_of(seed), backend_of(self.sampler))

    def _name_of(self, experiment: FragmentExperiment, task: Task) -> str:
        return kept_as(self.identity, content_of(experiment, task), task)

    def has_job(self, experiment: FragmentExperiment, task: Task) -> bool:
        """Whether a service has a job of a task, or may have it, which has not failed."""
        return self.has_service and self._jobs.has(self._name_of(experiment, task))

    def _pubs(self, experiment: FragmentExperiment, task: Task) -> Iterator[FamilyPub]:
        """Circuits of one family with as many shots each; one by one if they have no parameters."""
        shots = task.shots_of(experiment)
        rng = np.random.default_rng((task.seed, _TWIRLS))
        for part in experiment.family_parts(task.circuits):
            templates = self._twirled(self._template(experiment, part.family), rng)
            groups, settings = np.divmod(np.arange(part.start, part.stop), part.family.num_settings)
            own = shots[:, groups, part.family.first + settings]
            for number in np.unique(own[own > 0]).tolist():
                rows, places = np.nonzero(own == number)
                circuits = np.stack([rows, groups[places], settings[places]])
                bits = len(templates[0].measured) if self._copies else 0
                flips = balanced_flips(len(rows), max(1, self._copies), bits, rng)
                alone, start = len(templates) > 1, 0
                for copies, each in copies_of(number, self._copies):
                    own_flips = np.split(
                        flips[:, start : start + copies], copies if alone else 1, 1
                    )
                    own_templates = templates[start:] if alone else templates
                    for template, chosen in zip(own_templates, own_flips, strict=False):
                        for pub in bound(part.family, template, circuits, task.angles, chosen):
                            for piece in pieces_of(each, self.shots_per_circuit):
                                yield replace(pub, shots=piece)
                    start += copies

    def _twirled(self, template: Template, rng: np.random.Generator) -> list[Template]:
        """A template with random Paulis around gates, as often as there are copies; or as it is."""
        if not (self._twirls_gates and template.circuit.num_nonlocal_gates()):
            return [template]
        circuits = pauli_twirl_2q_gates(
            template.circuit,
            seed=int(rng.integers(1 << 32)),
            num_twirls=self._copies,
            target=self.target,
        )
        return [replace(template, circuit=circuit) for circuit in circuits]

    def _template(self, experiment: FragmentExperiment, family: SettingFamily) -> Template:
        """Families of a fragment are laid out on the same qubits, those of the first."""
        first = next(filter(experiment.runs, experiment.layout.families))
        with self._lock:
            layout = self._layouts.get(experiment.key)
            if layout is None and family.measured != first.measured and not self.defer_measurements:
                layout = self._made(experiment, first, None).layout
            return self._made(experiment, family, layout)

    def _made(
        self, experiment: FragmentExperiment, family: SettingFamily, layout: Sequence[int] | None
    ) -> Template:
        """A template as it is remembered; the factors of noise share one transpiled circuit."""
        key = experiment.key, family.measured, self._copies > 0
        known = self._templates
        if (*key, self._factor) not in known:
            if len(known) >= _MOST_TEMPLATES:
                known.clear()
            if (*key, 1) not in known:
                defer, fragment = self.defer_measurements, experiment.fragment
                is_aer = comes_from(backend_of(self.sampler), "qiskit_aer")
                try:
                    known[*key, 1] = make_template(
                        *(experiment, family, self.target),
                        defer=defer,
                        purify=defer and (fragment.num_lost <= _MOST_ANCILLAS or not is_aer),
                        twirled=self._copies > 0,
                        layout=layout,
                    )
                except TranspilerError as error:
                    raise BackendError(
                        f"fragment {fragment.index} ({fragment.num_qubits} qubits) cannot be "
                        f"transpiled to {self._device}: {error.message}. Cut more where its qubits "
                        "or couplings that work are too few; take another device where it lacks "
                        "an instruction"
                    ) from error
            known[*key, self._factor] = known[*key, 1].folded(self._factor, self.target)
        return known[*key, self._factor]

    def __reduce__(self) -> tuple[Any, ...]:
        # Templates are made where they are used.
        options = self.defer_measurements, self.circuits_per_job, self.shots_per_circuit, self.mode
        state = {
            **{"_mitigation": self._mitigation, "_factor": self._factor},
            "_layouts": self._layouts,
        }
        return type(self), (self.sampler, *options), state


def _checked_mode(mode: ExecutionMode | None, sampler: BaseSamplerV2) -> ExecutionMode | None:
    if mode is None:
        return None
    if mode not in get_args(ExecutionMode):
        raise InputError(f'`mode` is {mode!r}: use "batch", "session" or None')
    if not hasattr(sampler, "_mode"):
        raise InputError(
            f"`mode` is {mode!r}, and {name_of(sampler)} sends its jobs in none: give a sampler of "
            "`qiskit-ibm-runtime`, or mode=None"
        )
    if sampler._mode is not None:
        raise InputError(
            f"`mode` is {mode!r}, and the sampler has a batch or session of its own: give "
            "mode=None, or a sampler made with the device, Sampler(mode=device)"
        )
    return mode
