"""Gradients at the cost of a fragment, behind Qiskit Machine Learning's gradient interface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeAlias, cast

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.primitives import EstimatorPubLike

from .checks import LARGEST_PRECISION, Fixed, check_precision, described
from .cutting import FloatArray
from .errors import InputError, MissingExtraError
from .estimator import DistributedEstimator
from .pipeline import Evaluation, Request
from .pubs import Batch, batch_of, merge, read_pubs
from .subexperiments import Accuracy

try:
    from qiskit_machine_learning.algorithm_job import AlgorithmJob
    from qiskit_machine_learning.gradients import BaseEstimatorGradient, EstimatorGradientResult
except ImportError as error:
    raise MissingExtraError("qiskit-machine-learning", "ml", "FragmentGradient") from error


_Group: TypeAlias = tuple[list[int], Batch, tuple[int, ...]]
"""Numbers of the members of a call that share a circuit object and the parameters wanted, their
queries, and the numbers of these parameters."""


class FragmentGradient(Fixed, BaseEstimatorGradient):
    """Derivatives of expectation values by parameter shifts inside single fragments.

    A parameter's gate lies in one fragment: only that fragment runs again, shifted, and the rest
    of the network, its environment, turns the change into a change of the value. Gates with
    more than one frequency take the general shift rule, expressions and repeated parameters
    the chain rule, and a cut gate's own angle needs no circuit at all, only its core's slope.
    All circuits of a call that are one object are evaluated in one batch.

    Args:
        estimator: Runs the fragments.
        precision: Standard error that every component of a gradient must meet. None: the
            estimator's options rule; 0: exact.

    Example:
        >>> from qiskit.circuit.library import real_amplitudes
        >>> from qiskit.quantum_info import SparsePauliOp
        >>> gradient = FragmentGradient(DistributedEstimator(cuts="AB"), precision=0)
        >>> circuit = real_amplitudes(2, reps=1)
        >>> job = gradient.run([circuit], [SparsePauliOp("ZZ")], [[0.1, 0.2, 0.3, 0.4]])
        >>> job.result().gradients[0].round(3)
        array([ 0.122, -0.538, -0.207, -0.511])
    """

    def __init__(self, estimator: DistributedEstimator, precision: float | None = None) -> None:
        if not isinstance(estimator, DistributedEstimator):
            raise InputError(
                f"`estimator` is {described(estimator)}: FragmentGradient needs a "
                "DistributedEstimator; other estimators go with ParamShiftEstimatorGradient"
            )
        if precision is not None:
            check_precision(precision, "precision")
        super().__init__(estimator)
        self._precision = precision

    def run(
        self,
        circuits: Sequence[QuantumCircuit],
        observables: Sequence[Any],
        parameter_values: Sequence[Sequence[float]] | np.ndarray[Any, Any],
        parameters: Sequence[Sequence[Parameter] | None] | None = None,
        **options: Any,
    ) -> AlgorithmJob:
        """Start the gradients of `circuits[i]` and `observables[i]` at `parameter_values[i]`.

        Args:
            circuits: Parameterised circuits; one object may stand many times.
            observables: One per circuit.
            parameter_values: One row per circuit, in the order of `circuit.parameters`.
            parameters: The parameters wanted of each circuit; None: all.
            **options: `precision` overrides the gradient's own.

        Returns:
            A job whose result holds, per circuit, an array of shape (parameters wanted,), and as
            `metadata` the "parameters" and the standard errors of their derivatives, "stderrs".
            These are to first order in the fragments' errors; components share shots, so that
            their errors are correlated.

        Raises:
            InputError: Lengths, parameters or values do not fit.
        """
        if isinstance(circuits, QuantumCircuit):
            circuits, observables = [circuits], [observables]
        counts = [len(circuits), len(observables), len(parameter_values)]
        wanted = [None] * len(circuits) if parameters is None else list(parameters)
        if len({*counts, len(wanted)}) > 1:
            raise InputError(
                f"{counts[0]} circuits, {counts[1]} observables, {counts[2]} rows of values and "
                f"{len(wanted)} lists of parameters were given: give as many of each"
            )
        precision = options.pop("precision", self._precision)
        if precision is not None:
            check_precision(precision, "precision")
        if options:
            raise InputError(f"unknown options {sorted(options)}: only `precision` is known here")
        estimator: DistributedEstimator = self._estimator
        groups = _group(circuits, observables, parameter_values, wanted)
        accuracy, run = estimator.accuracy(precision), estimator.next_run()
        job = AlgorithmJob(self._evaluate, groups, accuracy, run)
        job.submit()
        return job

    def values_and_gradients(
        self,
        pub: EstimatorPubLike,
        parameters: Sequence[Parameter] | None = None,
        *,
        shots_total: int | None = None,
    ) -> tuple[FloatArray, FloatArray]:
        """Expectation values of a PUB and their derivatives, from one evaluation.

        With shots, both come from the same ones: a product of the two is biased in the order of
        one over the shots. Ask for values in a run of their own where that matters. Shots
        are divided for the derivatives alone, and values may be far less precise than these.

        Args:
            pub: As in `DistributedEstimator.run`.
            parameters: The parameters to differentiate by; None: all, in the circuit's order.
            shots_total: As in `DistributedEstimator.run`.

        Returns:
            Values of the PUB's shape, and derivatives of shape (*that shape, parameters).

        Raises:
            InputError: The PUB or the parameters do not fit.

        Example:
            >>> from qiskit.circuit.library import real_amplitudes
            >>> gradient = FragmentGradient(DistributedEstimator(cuts="AB"), precision=0)
            >>> circuit = real_amplitudes(2, reps=1)
            >>> values, gradients = gradient.values_and_gradients(
            ...     (circuit, ["ZZ", "XI"], [0.1, 0.2, 0.3, 0.4]), circuit.parameters[:1]
            ... )
            >>> values.shape, gradients.shape
            ((2,), (2, 1))
        """
        (read,) = read_pubs([pub], self._precision)
        places = _places(read.circuit, parameters)
        estimator: DistributedEstimator = self._estimator
        accuracy, run = estimator.accuracy(read.precision, shots_total), estimator.next_run()
        request = Request(merge([read]), accuracy, run, places, errors=False)
        (evaluation,) = estimator.gradient([request])
        return (
            evaluation.values.reshape(read.shape),
            _gradients_of(evaluation).reshape(*read.shape, len(places)),
        )

    def weighted(
        self,
        pub: EstimatorPubLike,
        weights: FloatArray,
        parameters: Sequence[Parameter] | None = None,
        *,
        shots_total: int | None = None,
    ) -> tuple[FloatArray, FloatArray]:
        """Derivatives of a PUB, and the standard errors of those of its values' weighted sum.

        With `shots_total` shots are divided so that the largest of these is least. The gradient of
        a loss is such a sum, with the loss's slopes by the values as weights.

        Args:
            pub: As in `DistributedEstimator.run`.
            weights: Of the values, in the PUB's shape.
            parameters: As for `values_and_gradients`.
            shots_total: As in `DistributedEstimator.run`.

        Returns:
            Derivatives of shape (*the PUB's, parameters), and errors of shape (parameters,), to
            first order in the fragments' errors.

        Raises:
            InputError: The PUB, the weights or the parameters do not fit.

        Example:
            >>> from qiskit.circuit.library import real_amplitudes
            >>> from distributed_estimator import EstimatorOptions
            >>> options = EstimatorOptions(seed=1)
            >>> gradient = FragmentGradient(DistributedEstimator(cuts="AB", options=options))
            >>> pub = (real_amplitudes(2, reps=1), ["ZZ", "XI"], [0.1, 0.2, 0.3, 0.4])
            >>> derivatives, stderrs = gradient.weighted(pub, [0.5, -0.5], shots_total=10_000)
            >>> derivatives.shape, stderrs.shape, bool(stderrs.max() < 0.05)
            ((2, 4), (4,), True)
        """
        (read,) = read_pubs([pub], self._precision)
        places = _places(read.circuit, parameters)
        try:
            factors = np.asarray(weights, dtype=np.float64)
        except (ValueError, TypeError):
            raise InputError(f"`weights` is {described(weights)}: give numbers") from None
        fits = factors.shape == read.shape and (np.abs(factors) <= LARGEST_PRECISION).all()
        if not fits:
            raise InputError(
                f"`weights` has shape {factors.shape}, and the PUB's values {read.shape}: give a "
                f"finite number for each, up to {LARGEST_PRECISION:g} in size"
            )
        if not factors.size:
            return np.zeros((*read.shape, len(places))), np.zeros(len(places))
        estimator: DistributedEstimator = self._estimator
        accuracy, run = estimator.accuracy(read.precision, shots_total), estimator.next_run()
        request = Request(merge([read]), accuracy, run, places, weights=factors.ravel())
        (evaluation,) = estimator.gradient([request])
        found = _gradients_of(evaluation).reshape(*read.shape, len(places))
        return found, evaluation.stderrs

    def num_circuits(
        self, pub: EstimatorPubLike, parameters: Sequence[Parameter] | None = None
    ) -> tuple[int, int]:
        """Circuits of all bindings: those of the values of a PUB, and those of their derivatives.

        Args:
            pub: As in `DistributedEstimator.run`.
            parameters: As for `values_and_gradients`.

        Raises:
            InputError: The PUB or the parameters do not fit.

        Example:
            >>> from qiskit.circuit.library import real_amplitudes
            >>> gradient = FragmentGradient(DistributedEstimator(cuts="AB"))
            >>> gradient.num_circuits((real_amplitudes(2, reps=1), "ZZ", [0.1, 0.2, 0.3, 0.4]))
            (10, 50)
        """
        (read,) = read_pubs([pub], self._precision)
        estimator: DistributedEstimator = self._estimator
        values = Request(merge([read]), estimator.accuracy(read.precision), "circuits")
        derivatives = replace(values, parameters=_places(read.circuit, parameters))
        counted = estimator.pipeline.num_circuits
        return counted(values), counted(derivatives)

    def _run(
        self,
        circuits: Sequence[QuantumCircuit],
        observables: Sequence[Any],
        parameter_values: Sequence[Sequence[float]] | np.ndarray[Any, Any],
        parameters: Sequence[Sequence[Parameter]],
        **options: Any,
    ) -> EstimatorGradientResult:
        job = self.run(circuits, observables, parameter_values, parameters, **options)
        return cast(EstimatorGradientResult, job.result())

    def _evaluate(
        self, groups: list[_Group], accuracy: Accuracy, run: str
    ) -> EstimatorGradientResult:
        requests = [
            Request(batch, accuracy, f"{run} group {number}", places)
            for number, (_, batch, places) in enumerate(groups)
        ]
        evaluations = self._estimator.gradient(requests)
        rows: dict[int, FloatArray] = {}
        metadata: dict[int, dict[str, Any]] = {}
        for (members, batch, places), evaluation in zip(groups, evaluations, strict=True):
            wanted = [batch.circuit.parameters[place] for place in places]
            rows.update(zip(members, _gradients_of(evaluation), strict=True))
            for member, stderrs in zip(members, evaluation.stderrs, strict=True):
                metadata[member] = {"parameters": wanted, "stderrs": stderrs}
        order = range(len(rows))
        return EstimatorGradientResult(
            [rows[n] for n in order], [metadata[n] for n in order], self._estimator.options
        )


def _gradients_of(evaluation: Evaluation) -> FloatArray:
    assert evaluation.gradients is not None
    return evaluation.gradients


def _places(circuit: QuantumCircuit, wanted: Sequence[Parameter] | None) -> tuple[int, ...]:
    """Numbers of the parameters wanted in the circuit's order; None: all."""
    every = list(circuit.parameters)
    numbers = {parameter: number for number, parameter in enumerate(every)}
    unknown = [getattr(p, "name", p) for p in wanted or () if p not in numbers]
    if not every or unknown:
        raise InputError(
            f"the circuit has the parameters {[p.name for p in every]}, the gradient is asked "
            f"by {unknown or 'none of them'}: ask by the circuit's own"
        )
    return tuple(numbers[p] for p in (every if wanted is None else wanted))


def _group(
    circuits: Sequence[QuantumCircuit],
    observables: Sequence[Any],
    values: Sequence[Sequence[float]] | np.ndarray[Any, Any],
    wanted: Sequence[Sequence[Parameter] | None],
) -> list[_Group]:
    """The queries by circuit and parameters; raises `InputError` where they are not well formed."""
    found: dict[tuple[int, int], list[int]] = {}
    for member, circuit in enumerate(circuits):
        if not isinstance(circuit, QuantumCircuit):
            raise InputError(f"a circuit is {type(circuit).__name__}: give a QuantumCircuit")
        found.setdefault((id(circuit), id(wanted[member])), []).append(member)
    groups: list[_Group] = []
    for members in found.values():
        circuit = circuits[members[0]]
        places = _places(circuit, wanted[members[0]])
        try:
            rows = np.array([values[member] for member in members], dtype=np.float64)
            if rows.ndim != 2:
                raise ValueError(f"they have {rows.ndim} axes")
        except (ValueError, TypeError) as error:
            raise InputError(
                f"the parameter values are not rows of real numbers: {error}"
            ) from error
        batch = batch_of(circuit, [observables[member] for member in members], rows)
        groups.append((members, batch, places))
    return groups
