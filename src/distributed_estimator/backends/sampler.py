"""Fragments on any Qiskit sampler: Aer, a noise model, a QPU."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
from qiskit.primitives import BaseSamplerV2, StatevectorSampler

from ..checks import check_kind, check_whole
from ..cutting import FloatArray, IntArray
from ..errors import BackendError, DistributedEstimatorError
from ..forks import Lock
from ..subexperiments import FamilyPart, FragmentEstimate, FragmentExperiment, SettingFamily, Task
from .seeds import comes_from, draws_of, reseeded
from .templates import MEASURE_REGISTER, SLOT_REGISTER, Template, make_template

_CIRCUITS_PER_JOB = 512
_MOST_TEMPLATES = 1024
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
            qubits. None: for noiseless simulators of circuits, which are far faster so or know no
            other way; never where it would matter to noise, hardware or its number of
            qubits.
        circuits_per_job: Circuits (settings at bindings) a job holds at most. What simulators
            draw depends on it.

    Raises:
        InputError: `sampler` is none, or `circuits_per_job` is not a positive whole number.
    """

    exact = False

    def __init__(
        self,
        sampler: BaseSamplerV2,
        defer_measurements: bool | None = None,
        circuits_per_job: int = _CIRCUITS_PER_JOB,
    ) -> None:
        check_kind("sampler", sampler, BaseSamplerV2, "an instance of any Qiskit BaseSamplerV2")
        self.sampler = sampler
        self.circuits_per_job = check_whole("circuits_per_job", circuits_per_job)
        self.defer_measurements = (
            _is_noiseless(sampler) and device_of(sampler) is None
            if defer_measurements is None
            else defer_measurements
        )
        self._templates: dict[tuple[str, tuple[bool, ...]], Template] = {}
        self._lock = Lock()

    @property
    def name(self) -> str:
        """Package and class of the sampler, and its device or that it has a noise model."""
        noisy = comes_from(self.sampler, "qiskit_aer") and not _is_noiseless(self.sampler)
        noise = "(noise model)" if noisy and device_of(self.sampler) is None else ""
        return f"{name_of(self.sampler)}{noise}"

    @property
    def identity(self) -> str:
        """Hash of the class of the sampler, its device's name, and all options, noise included.

        Objects without readable content are compared by their `repr`, which may differ between two
        equal samplers, but hardly agree between two that differ.
        """
        sampler, backend = self.sampler, backend_of(self.sampler)
        content = [
            f"{type(sampler).__module__}.{type(sampler).__qualname__}",
            self.defer_measurements,
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

    def row_bytes(self, experiment: FragmentExperiment, shots: int | None) -> int:
        """The bits of all shots, and tables of their outcomes; no state vector."""
        bits = experiment.fragment.num_qubits + len(experiment.fragment.slots)
        runs = min(experiment.num_circuits, self.circuits_per_job) * (shots or 0)
        return 16 * runs * bits + experiment.table_bytes()

    def expected_seconds(self, experiment: FragmentExperiment, task: Task) -> float:
        """Long enough to be a job of its own."""
        return 1.0

    def run(self, experiment: FragmentExperiment, task: Task) -> FragmentEstimate:
        """Run the task's circuits as one job; see `Backend`.

        Raises:
            BackendError: The sampler failed, or cannot run the circuits.
        """
        try:
            parts = list(self._parts(experiment, task))
            pubs = [_pub(part, template, task.angles) for part, template in parts]
            sampler = _on_one_thread(reseeded(self.sampler, task.seed))
            results = sampler.run(pubs, shots=task.shots).result() if pubs else ()
            tables, shots = _tables(experiment, task, parts, results)
            estimate = FragmentEstimate.of_frequencies(experiment, task, tables, shots)
            return replace(estimate, draws=draws_of(results))
        except DistributedEstimatorError:
            raise
        except Exception as error:
            raise BackendError(
                f"the sampler {self.name} failed on fragment {experiment.fragment.index} "
                f"({experiment.fragment.num_qubits} qubits): {error}. If it lacks a gate, "
                "transpile the circuit first; if it refuses measurements inside a circuit, pass "
                "backend=SamplerBackend(sampler, defer_measurements=True)"
            ) from error

    def _parts(
        self, experiment: FragmentExperiment, task: Task
    ) -> Iterator[tuple[FamilyPart, Template]]:
        """The parts that become one PUB each: a family, or one circuit if it has no parameters."""
        for part in experiment.family_parts(task.circuits):
            template = self._template(experiment, part.family)
            step = part.stop - part.start if template.circuit.num_parameters else 1
            for start in range(part.start, part.stop, step):
                yield FamilyPart(part.family, start, start + step), template

    def _template(self, experiment: FragmentExperiment, family: SettingFamily) -> Template:
        key = experiment.key, family.measured
        with self._lock:
            if key not in self._templates:
                if len(self._templates) >= _MOST_TEMPLATES:
                    self._templates.clear()
                target = getattr(backend_of(self.sampler), "target", None)
                self._templates[key] = make_template(
                    experiment, family, target, defer=self.defer_measurements
                )
            return self._templates[key]

    def __reduce__(self) -> tuple[Any, ...]:
        # Templates are made where they are used.
        return type(self), (self.sampler, self.defer_measurements, self.circuits_per_job)


def _tables(
    experiment: FragmentExperiment,
    task: Task,
    parts: Iterable[tuple[FamilyPart, Template]],
    results: Iterable[Any],
) -> tuple[list[FloatArray], int]:
    """Relative frequencies of all outcomes per measurement group, and the shots of each circuit."""
    rows, size = len(task.angles), experiment.layout.num_outcomes
    tables = [np.zeros((rows, group.num_outcomes, size)) for group in experiment.groups]
    taken: set[int] = set()
    for (part, template), result in zip(parts, results, strict=True):
        for number, settings, counts in _count(experiment, part, template, result.data, rows):
            taken.update(np.unique(counts.sum(axis=(2, 3))).tolist())
            tables[number][:, :, part.family.places[settings]] = counts.transpose(0, 2, 1, 3)
    # Where nothing is measured, every shot has the one outcome there is.
    assert task.shots is not None, "exact tasks have no counts"
    shots = next(iter(taken), task.shots)
    if len(taken) > 1:
        raise BackendError(
            f"between {min(taken)} and {max(taken)} shots came back where {task.shots} were asked "
            "for: choose a number of shots that the sampler can take"
        )
    for family in experiment.sure_families(task.circuits):
        tables[0][:, :, family.places] = shots
    return [table / shots for table in tables], shots


def _pub(part: FamilyPart, template: Template, angles: FloatArray) -> tuple[Any, ...]:
    """A family's circuit with one set of parameters per row and circuit, rows slowest."""
    if not template.circuit.num_parameters:
        return (template.circuit,)
    values = template.bind(angles)
    chosen = values.reshape(len(angles), -1, values.shape[1])[:, part.start : part.stop]
    return template.circuit, chosen.reshape(-1, values.shape[1])


def _count(
    experiment: FragmentExperiment, part: FamilyPart, template: Template, data: Any, rows: int
) -> Iterator[tuple[int, slice, IntArray]]:
    """Counts from the bits of one PUB, by number of the measurement group.

    Yields:
        A group's number, settings of the family, and their counts, shape (rows, settings,
        observable outcomes, slot outcomes).
    """
    family, measured = part.family, sum(part.family.measured)
    circuits = rows, part.stop - part.start
    observed = _bits(data, MEASURE_REGISTER, circuits, len(template.observed))
    slots = _bits(data, SLOT_REGISTER, circuits, measured)
    shots = max(observed.shape[2], slots.shape[2])
    # The first slot is the slowest.
    slot_outcomes = slots @ (1 << np.arange(measured)[::-1])
    places = {qubit: place for place, qubit in enumerate(template.observed)}
    first = 0
    for number, settings in part.by_group():
        group, count = experiment.groups[number], settings.stop - settings.start
        own = slice(first, first + count)
        outcomes = np.zeros((rows, count, shots), dtype=np.int64)
        for bit, generator in enumerate(group.generators):
            columns = [places[qubit] for qubit in generator]
            outcomes |= (observed[:, own][..., columns].sum(axis=-1) & 1) << bit
        outcomes = outcomes * family.num_slot_outcomes + slot_outcomes[:, own]
        size = group.num_outcomes * family.num_slot_outcomes
        offsets = size * np.arange(rows * count).reshape(rows, count, 1)
        counts = np.bincount((outcomes + offsets).ravel(), minlength=rows * count * size)
        shape = rows, count, group.num_outcomes, family.num_slot_outcomes
        yield number, settings, counts.reshape(shape)
        first += count


def _bits(data: Any, register: str, shape: tuple[int, int], width: int) -> IntArray:
    """Measured bits of a register of `width`, shape (rows, circuits, shots, width)."""
    if not width:
        return np.zeros((*shape, 1, 0), dtype=np.int64)
    found = getattr(data, register)
    packed = found.array.reshape(*shape, found.num_shots, -1)
    unpacked = np.unpackbits(packed[..., ::-1], axis=-1, bitorder="little")
    return unpacked[..., :width].astype(np.int64)


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
        # Aer gives each error of a noise model a number that no other has.
        names = sorted((key for key in value if key != "id"), key=str)
        return f"{{{', '.join(f'{name}: {_as_text(value[name])}' for name in names)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_as_text, value))}]"
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape} {value.tobytes().hex()}"
    return repr(value)
