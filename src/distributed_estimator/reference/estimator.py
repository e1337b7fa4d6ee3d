"""The paper's estimator: Algorithm 1 on qiskit-addon-cutting, a thread pool and Aer's sampler."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from qiskit.primitives import (
    BaseEstimatorV2,
    BaseSamplerV2,
    DataBin,
    PrimitiveJob,
    PrimitiveResult,
    PubResult,
)
from qiskit.primitives.containers.estimator_pub import EstimatorPubLike

from ..checks import Fixed, check_precision, check_whole, check_workers, from_numpy
from ..errors import CutError
from ..execution import Stragglers
from ..forks import Lock, register
from ..pubs import read_pubs
from ..records import (
    QueryRecord,
    RecordWriter,
    Summary,
    new_run_id,
    to_dict,
    utc_now,
)
from ..records.files import writer_of
from .execution import Execution
from .stages import Experiments, FloatArray, Problem, defer_measurements

_COUNTS = ("num_queries", "num_subexperiments", "num_circuits", "shots_total")
_TIMES = ("t_partition", "t_generate", "t_execute", "t_reconstruct", "t_total")


class ReferenceEstimator(Fixed, BaseEstimatorV2):
    """The baseline of the paper (§III, Alg. 1; §V-A), as the paper describes it.

    For every query: the bound circuit is partitioned by the labels, every term of the
    quasi-probability decomposition is written out, every subexperiment is one task on a thread
    pool and one sampler job there, and the addon reconstructs. Nothing is cached, batched, reused
    or repaired between the addon's functions. Labels that cut nothing, or None, run uncut through
    the same four timed stages.

    Args:
        cuts: A label per qubit in Qiskit's qubit order (a string, or any sequence of hashables),
            or None: not cut.
        sampler: Any `BaseSamplerV2` that takes Qiskit's standard gates; None: Aer's, one for each
            task.
        workers: Threads of the pool.
        shots: Shots of each subexperiment. As they are fixed, a `precision` is recorded and not
            otherwise used.
        seed: Of local simulators (each task gets its own from it), so that a sequence of `run`
            calls is reproducible for any `workers`; None: unpredictable.
        log: A path or `RecordWriter` that gets one `QueryRecord` a query.
        defer_measurements: Run the same subexperiments with mid-circuit measurements moved to
            ancilla qubits, all in one job: not the paper's way, but a stronger counterpart.
        simulator_threads: Of each of Aer's samplers. None is the plain `SamplerV2()` of the paper:
            Aer takes as many as `OMP_NUM_THREADS` or else the processors, and divides the shots
            of a circuit among them, so that values depend on how many there are. A sampler that is
            given has its own number.
        stragglers: Delays injected before subexperiments (§III), each drawn from the seed and
            the subexperiment's own number; those of one job add up. None: none are.
        clock: Seconds, for the stage times.

    The result has `evs` and `stds` of the PUB's broadcast shape; `stds` of a cut circuit are NaN,
    because the addon gives none. `metadata` holds the fields of the query record, of all queries
    of the PUB together.

    Raises:
        InputError: An argument is out of range, a `CutError` where `cuts` is meant; or
            `stragglers` has a slow worker.
        MissingExtraError: `sampler` is None and qiskit-aer is not installed.

    Example:
        >>> from qiskit import QuantumCircuit
        >>> bell = QuantumCircuit(2)
        >>> _ = bell.h(0), bell.cx(0, 1)
        >>> result = ReferenceEstimator("AB", shots=100, seed=7).run([(bell, "ZZ")]).result()
        >>> result[0].metadata["num_subexperiments"], result[0].data.shape
        (12, ())
    """

    def __init__(
        self,
        cuts: Sequence[Hashable] | None,
        *,
        sampler: BaseSamplerV2 | None = None,
        workers: int = 8,
        shots: int = 1024,
        seed: int | None = None,
        log: str | os.PathLike[str] | RecordWriter | None = None,
        defer_measurements: bool = False,
        simulator_threads: int | None = 1,
        stragglers: Stragglers | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._labels = None if cuts is None else _labels(cuts)
        self._seed = None if seed is None else check_whole("seed", from_numpy(seed), 0)
        threads = from_numpy(simulator_threads)
        self._execution = Execution(
            sampler,
            check_workers(workers),
            check_whole("shots", from_numpy(shots)),
            defer_measurements,
            stragglers,
            np.random.SeedSequence(self._seed).entropy,
            None if threads is None else check_whole("simulator_threads", threads),
        )
        self._log = writer_of("log", log)
        self._clock = clock
        self._run_id = new_run_id()
        self._calls = 0
        self._lock = Lock()
        register(self)

    def run(
        self, pubs: Iterable[EstimatorPubLike], *, precision: float | None = None
    ) -> PrimitiveJob[PrimitiveResult[PubResult]]:
        """Estimates every PUB's expectation values in the background.

        Args:
            pubs: ``(circuit, observables[, parameter values[, precision]])`` each.
            precision: Recorded; the shots are fixed.

        Returns:
            A job whose result holds one `PubResult` a PUB.

        Raises:
            InputError: A PUB, or the precision, is not valid; nothing has run. Failures of the
                addon or the sampler are raised by the job's `result` instead.
        """
        if precision is not None:
            check_precision(precision, "precision")
        problems = [Problem.of(pub, self._labels) for pub in read_pubs(pubs, precision)]
        with self._lock:
            call, self._calls = self._calls, self._calls + 1
        job = PrimitiveJob(self._run, call, problems)
        job._submit()
        return job

    @property
    def run_id(self) -> str:
        """The run that this estimator's records belong to."""
        return self._run_id

    @property
    def num_runs(self) -> int:
        """How many runs were begun; with the seed it decides the noise of the next."""
        return self._calls

    def continue_run(self, run_id: str, num_runs: int) -> None:
        """Go on where another estimator with this one's seed stopped."""
        with self._lock:
            self._run_id, self._calls = run_id, num_runs

    def _run(self, call: int, problems: list[Problem]) -> PrimitiveResult[PubResult]:
        return PrimitiveResult(
            [self._run_pub((call, i), problem) for i, problem in enumerate(problems)],
            metadata={"version": 2},
        )

    def _run_pub(self, place: tuple[int, ...], problem: Problem) -> PubResult:
        shape = problem.pub.shape
        evs, stds = np.empty(shape), np.empty(shape)
        records = []
        for number, index in enumerate(np.ndindex(*shape)):
            record = self._query((*place, number), problem, index)
            evs[index], stds[index] = record.value.mean, record.stderr.mean
            records.append(record)
            if self._log is not None:
                self._log.write(record)
        data = DataBin(evs=evs, stds=stds, shape=shape)
        return PubResult(data, metadata=_together(records, evs, stds))

    def _query(
        self, place: tuple[int, ...], problem: Problem, index: tuple[int, ...]
    ) -> QueryRecord:
        """Algorithm 1 for one query; `place` holds the numbers of call, PUB and query."""
        started_at, stages = utc_now(), problem.stages
        weights, paulis = problem.observable(index)
        ticks = [self._clock()]
        parts = stages.partition(problem.bind(index), paulis)
        ticks.append(self._clock())
        generated = stages.generate(parts)
        experiments = self._deferred(generated)
        ticks.append(self._clock())
        results, tally = self._execution.run(experiments, place)
        ticks.append(self._clock())
        value, stderr = stages.reconstruct(experiments, results, weights)
        ticks.append(self._clock())
        seconds = [after - before for before, after in pairwise(ticks)]
        times: dict[str, Any] = dict(zip(_TIMES, (*seconds, sum(seconds)), strict=True))
        return QueryRecord(
            run_id=self._run_id,
            query_id=".".join(map(str, place)),
            started_at=started_at,
            pipeline="reference",
            circuit=problem.info,
            num_queries=1,
            partition_label=_text_of(self._labels),
            num_cuts=generated.num_cuts,
            num_fragments=len(generated.circuits),
            max_fragment_qubits=generated.max_qubits,
            num_terms=generated.num_terms,
            num_subexperiments=generated.num_circuits,
            num_circuits=generated.num_circuits,
            shots_total=self._execution.shots * generated.num_circuits,
            setting_basis=stages.setting_basis,
            **self._execution.recorded(tally),
            **times,
            value=Summary.of(value),
            stderr=Summary.of(stderr),
            precision=problem.pub.precision,
            seed=self._seed,
        )

    def _deferred(self, experiments: Experiments) -> Experiments:
        if not self._execution.deferred:
            return experiments
        circuits = {
            label: [defer_measurements(circuit) for circuit in of]
            for label, of in experiments.circuits.items()
        }
        return replace(experiments, circuits=circuits)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=Lock())
        register(self)
        self._renew_in_fork()

    def _renew_in_fork(self) -> None:
        """Without a seed, a copy is not to repeat what its original draws."""
        if self._seed is None:
            entropy = np.random.SeedSequence().entropy
            self._execution = replace(self._execution, entropy=entropy)


def _together(records: list[QueryRecord], evs: FloatArray, stds: FloatArray) -> dict[str, Any]:
    """The fields of one record for all queries of a PUB: counts and times added up."""
    if not records:
        return {"num_queries": 0}
    sums = {name: sum(getattr(record, name) for record in records) for name in (*_COUNTS, *_TIMES)}
    stragglers = [record.straggler for record in records]
    straggler = replace(
        stragglers[0],
        injected=sum(each.injected for each in stragglers),
        injected_seconds=sum(each.injected_seconds for each in stragglers),
    )
    value, stderr = Summary.of(evs), Summary.of(stds)
    return to_dict(replace(records[0], **sums, straggler=straggler, value=value, stderr=stderr))


def _text_of(labels: tuple[Hashable, ...] | None) -> str | None:
    """Labels as records show them: side by side, or with commas if one is longer than a letter."""
    if labels is None:
        return None
    words = [str(label) for label in labels]
    return ("" if all(len(word) == 1 for word in words) else ",").join(words)


def _labels(cuts: Sequence[Hashable]) -> tuple[Hashable, ...]:
    try:
        labels = tuple(cuts)
        hash(labels)
    except TypeError as error:
        raise CutError(
            f"`cuts` is {cuts!r}: the reference takes a label per qubit (a string, or a sequence "
            "of hashables) or None"
        ) from error
    return labels
