"""Fragments on any Qiskit sampler: Aer, a noise model, a QPU."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from math import prod
from typing import Any, Self, get_args

import numpy as np
from qiskit.primitives import BaseSamplerV2, StatevectorSampler

from ..checks import check_kind, check_whole, from_numpy
from ..cutting import FloatArray, IntArray
from ..errors import BackendError, DistributedEstimatorError, InputError
from ..forks import Lock
from ..records import RecordWriter
from ..subexperiments import (
    FragmentExperiment,
    FragmentResult,
    JobBook,
    SettingFamily,
    Task,
    content_of,
    kept_as,
)
from .jobs import ExecutionMode, JobRequest, Jobs, Mode, options_text, service_of
from .seeds import comes_from, draws_of, reseeded
from .templates import MEASURE_REGISTER, SLOT_REGISTER, Template, make_template

_CIRCUITS_PER_JOB = 512
_MOST_TEMPLATES = 1024
_MOST_ANCILLAS = 8
"""In the place of a circuit's own measurements and resets, where Aer could run them as they are."""
_PLAIN = "aer_simulator"
"""Aer's simulators of no device are named so, some with the method after it."""


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
        self.circuits_per_job = check_whole("circuits_per_job", circuits_per_job)
        if shots_per_circuit is None:
            shots_per_circuit = getattr(backend_of(sampler), "max_shots", None)
        self.shots_per_circuit = (
            None
            if shots_per_circuit is None
            else check_whole("shots_per_circuit", from_numpy(shots_per_circuit), 1, ", or None")
        )
        self.defer_measurements = (
            _is_noiseless(sampler) and device_of(sampler) is None
            if defer_measurements is None
            else defer_measurements
        )
        self.mode = _checked_mode(mode, sampler)
        self._templates: dict[tuple[str, tuple[bool, ...]], Template] = {}
        self._lock = Lock()
        self._mode, self._jobs = Mode(mode), Jobs()

    @property
    def name(self) -> str:
        """Package and class of the sampler, and its device or that it has a noise model."""
        noisy = comes_from(self.sampler, "qiskit_aer") and not _is_noiseless(self.sampler)
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
            f"{type(sampler).__module__}.{type(sampler).__qualname__}",
            self.defer_measurements,
            self.shots_per_circuit,
            getattr(backend, "name", None),
            getattr(backend, "options", None),
            getattr(sampler, "options", None),
        ]
        return hashlib.sha256(_as_text(content).encode()).hexdigest()[:32]

    @property
    def max_qubits(self) -> int | None:
        """Qubits of the device; None for simulators of circuits."""
        found: int | None = getattr(device_of(self.sampler), "num_qubits", None)
        return found

    def rows_per_task(self, experiment: FragmentExperiment) -> int:
        """As many as a job holds."""
        return max(1, self.circuits_per_job // max(1, experiment.num_circuits))

    def circuits_per_task(self, experiment: FragmentExperiment) -> int | None:
        """As many as a job holds, where a binding has more."""
        return self.circuits_per_job if experiment.num_circuits > self.circuits_per_job else None

    def row_bytes(
        self, experiment: FragmentExperiment, angles: FloatArray, shots: int | None
    ) -> int:
        """The bits of all shots, and tables of their outcomes; no state vector."""
        bits = experiment.fragment.num_qubits + len(experiment.fragment.slots)
        runs = min(experiment.num_circuits, self.circuits_per_job) * (shots or 0)
        return 16 * runs * bits + experiment.table_bytes()

    def expected_seconds(self, experiment: FragmentExperiment, task: Task) -> float:
        """Long enough to be a job of its own."""
        return 1.0

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
            raise BackendError(
                f"the sampler {self.name} failed on fragment {experiment.fragment.index} "
                f"({experiment.fragment.num_qubits} qubits): {error}. If it lacks a gate, "
                "transpile the circuit first; if it refuses measurements inside a circuit, pass "
                "backend=SamplerBackend(sampler, defer_measurements=True)"
            ) from error

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
        self, experiment: FragmentExperiment, task: Task, pubs: Sequence[_Pub]
    ) -> list[Any]:
        """Results of one job, or of one for each number of shots if the sampler refuses that."""
        if not pubs:
            return []

        def send(own: Sequence[int], place: int, shots: int | None) -> Callable[[], list[Any]]:
            def name() -> str:
                return self._name_of(experiment, task) + (f" with {shots} shots" if shots else "")

            contents = [pubs[n].content for n in own]
            return self._send(contents, task.seed + place, name, task.key, shots)

        numbers = sorted({pub.shots for pub in pubs})
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
        backend = backend_of(self.sampler)

        def own_sampler() -> BaseSamplerV2:
            own = _on_one_thread(reseeded(self.sampler, seed))
            return self._mode.applied(own, backend)

        if not self.has_service:
            sampler = own_sampler()
            job = sampler.run(contents) if shots is None else sampler.run(contents, shots=shots)
            return lambda: list(job.result())
        request = JobRequest(name(), task, contents, shots, options_text(self.sampler))
        sent = self._jobs.send(own_sampler, backend, request)
        return lambda: self._jobs.results(sent, backend.name)

    def _name_of(self, experiment: FragmentExperiment, task: Task) -> str:
        return kept_as(self.identity, content_of(experiment, task), task)

    def has_job(self, experiment: FragmentExperiment, task: Task) -> bool:
        """Whether a service has a job of a task, or may have it, which has not failed."""
        return self.has_service and self._jobs.has(self._name_of(experiment, task))

    def _pubs(self, experiment: FragmentExperiment, task: Task) -> Iterator[_Pub]:
        """Circuits of one family with as many shots each; one by one if they have no parameters."""
        shots = task.shots_of(experiment)
        for part in experiment.family_parts(task.circuits):
            template = self._template(experiment, part.family)
            groups, settings = np.divmod(np.arange(part.start, part.stop), part.family.num_settings)
            own = shots[:, groups, part.family.first + settings]
            values = template.bind(task.angles)
            values = values.reshape(len(own), len(values) // len(own), values.shape[1])
            for number in np.unique(own[own > 0]).tolist():
                chosen = np.nonzero(own == number)
                circuits = np.stack([chosen[0], groups[chosen[1]], settings[chosen[1]]])
                bound = values[chosen[0], part.start + chosen[1]]
                step = len(bound) if template.circuit.num_parameters else 1
                for start in range(0, len(bound), step):
                    places = slice(start, start + step)
                    for piece in _pieces(number, self.shots_per_circuit):
                        yield _Pub(part.family, template, circuits[:, places], bound[places], piece)

    def _template(self, experiment: FragmentExperiment, family: SettingFamily) -> Template:
        key = experiment.key, family.measured
        with self._lock:
            if key not in self._templates:
                if len(self._templates) >= _MOST_TEMPLATES:
                    self._templates.clear()
                target = getattr(backend_of(self.sampler), "target", None)
                defer, lost = self.defer_measurements, experiment.fragment.num_lost
                is_aer = comes_from(backend_of(self.sampler), "qiskit_aer")
                self._templates[key] = make_template(
                    *(experiment, family, target),
                    defer=defer,
                    purify=defer and (lost <= _MOST_ANCILLAS or not is_aer),
                )
            return self._templates[key]

    def __reduce__(self) -> tuple[Any, ...]:
        # Templates are made where they are used.
        options = self.defer_measurements, self.circuits_per_job, self.shots_per_circuit, self.mode
        return type(self), (self.sampler, *options)


@dataclass(frozen=True, eq=False)
class _Pub:
    """Circuits of one family that are run with `shots` each.

    Attributes:
        circuits: Row, measurement group and setting of the family of each, shape (3, circuits).
        values: Their parameters, shape (circuits, parameters).
    """

    family: SettingFamily
    template: Template
    circuits: IntArray
    values: FloatArray
    shots: int

    @property
    def content(self) -> tuple[Any, ...]:
        """What a sampler takes."""
        return self.template.circuit, self.values if self.values.size else None, self.shots

    def count(
        self, experiment: FragmentExperiment, data: Any, tables: Sequence[FloatArray]
    ) -> None:
        """Add counts to tables by measurement group, shape (rows, outcomes, slot outcomes)."""
        observed = self._bits(data, MEASURE_REGISTER, len(self.template.observed))
        slots = self._bits(data, SLOT_REGISTER, sum(self.family.measured))
        # The first slot is the slowest.
        slot_outcomes = slots @ (1 << np.arange(slots.shape[2])[::-1])
        places = {qubit: place for place, qubit in enumerate(self.template.observed)}
        rows, groups, settings = self.circuits
        for number in np.unique(groups).tolist():
            group, own = experiment.groups[number], np.flatnonzero(groups == number)
            outcomes = np.zeros((len(own), 1), dtype=np.int64)
            for bit, generator in enumerate(group.generators):
                columns = [places[qubit] for qubit in generator]
                outcomes = outcomes | (observed[own][..., columns].sum(axis=-1) & 1) << bit
            outcomes = outcomes * self.family.num_slot_outcomes + slot_outcomes[own]
            shape = group.num_outcomes, self.family.num_slot_outcomes
            offsets = prod(shape) * np.arange(len(own))[:, None]
            counts = np.bincount((outcomes + offsets).ravel(), minlength=len(own) * prod(shape))
            where = self.family.places[settings[own]]
            tables[number][rows[own, None], :, where] += counts.reshape(len(own), *shape).transpose(
                0, 2, 1
            )

    def _bits(self, data: Any, register: str, width: int) -> IntArray:
        """Measured bits of a register of `width`, shape (circuits, shots, width)."""
        if not width:
            return np.zeros((len(self.values), 1, 0), dtype=np.int64)
        found = getattr(data, register)
        packed = found.array.reshape(len(self.values), found.num_shots, -1)
        unpacked = np.unpackbits(packed[..., ::-1], axis=-1, bitorder="little")
        return unpacked[..., :width].astype(np.int64)


def _pieces(shots: int, most: int | None) -> list[int]:
    """Shots divided as evenly as possible into as few parts of at most `most` as there can be."""
    count = 1 if most is None else -(-shots // most)
    return [shots // count + (place < shots % count) for place in range(count)]


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


def _is_noiseless(sampler: BaseSamplerV2) -> bool:
    if isinstance(sampler, StatevectorSampler):
        return True
    backend: Any = getattr(sampler, "_backend", None)
    if not comes_from(backend, "qiskit_aer"):
        return False
    options = getattr(sampler, "options", None)
    return not (
        (getattr(options, "run_options", None) or {}).get("noise_model")
        or getattr(getattr(options, "simulator", None), "noise_model", None)
        or getattr(backend.options, "noise_model", None)
    )


def _on_one_thread(sampler: BaseSamplerV2) -> BaseSamplerV2:
    """Aer's sampler with one thread a worker, unless its options say otherwise.

    On many small circuits Aer's own threads cost more than they gain.
    """
    if not comes_from(sampler, "qiskit_aer") or "max_parallel_threads" in {
        **sampler.options.backend_options,
        **sampler.options.run_options,
    }:
        return sampler
    fresh = copy.copy(sampler)
    fresh._options = copy.copy(sampler.options)
    fresh._options.run_options = {"max_parallel_threads": 1, **sampler.options.run_options}
    return fresh


def backend_of(sampler: BaseSamplerV2) -> Any:
    """The backend that a sampler runs on; None if it names none."""
    backend = getattr(sampler, "backend", None) or getattr(sampler, "_backend", None)
    return backend() if callable(backend) and not hasattr(backend, "target") else backend


def device_of(sampler: BaseSamplerV2) -> Any:
    """The backend with a name that a sampler runs on or simulates; None: it simulates circuits."""
    backend = backend_of(sampler)
    name = str(getattr(backend, "name", None) or _PLAIN)
    return None if name.startswith(_PLAIN) and "(" not in name else backend


def name_of(sampler: BaseSamplerV2) -> str:
    """Package and class of a sampler, and the device that it runs on or simulates.

    Example:
        >>> from qiskit.primitives import BackendSamplerV2
        >>> from qiskit.providers.fake_provider import GenericBackendV2
        >>> name_of(BackendSamplerV2(backend=GenericBackendV2(5)))
        'qiskit.BackendSamplerV2(generic_backend_5q)'
    """
    kind, device = type(sampler), device_of(sampler)
    name = f"{kind.__module__.partition('.')[0]}.{kind.__name__}"
    return name if device is None else f"{name}({device.name})"


def _as_text(value: Any) -> str:
    """A value as text, the same for equal ones in any process wherever that can be had."""
    if hasattr(value, "to_dict"):  # a noise model
        value = value.to_dict()
    if hasattr(value, "model_dump"):  # options of the runtime's newer samplers
        value = value.model_dump()
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if not isinstance(value, Mapping) and hasattr(value, "_fields"):  # options of a Qiskit backend
        value = dict(value._fields)
    if isinstance(value, Mapping):
        # Aer gives each error of a noise model a number that no other has, and the environment of
        # a job (its tags, how much is logged) changes no result.
        names = sorted((key for key in value if key not in ("id", "environment")), key=str)
        return f"{{{', '.join(f'{name}: {_as_text(value[name])}' for name in names)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_as_text, value))}]"
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape} {value.tobytes().hex()}"
    return repr(value)
