"""Queries as a device is expected to run them: what they take, and how far values are off."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, inf

import numpy as np
from qiskit.transpiler import Target

from ..backends import StatevectorBackend
from ..backends.forecast import ForecastBackend, FragmentForecast
from ..backends.noise import CircuitNoise, NoisePrice, noise_price
from ..cutting import Cuts, SettingBasis
from ..errors import BackendError, InputError, PlanTooLargeError
from ..execution import Conditions, Pool
from ..pubs import Batch
from ..subexperiments import MOST_SHOTS, Accuracy, Mitigation
from .pipeline import Pipeline, Request
from .preparation import Prepared

_SIMULATED = 20
"""Qubits of a fragment up to which values and their spread come from a simulation."""


@dataclass(frozen=True, eq=False)
class Simulator:
    """Runs queries here, without noise or with that of a device; see `Pipeline`."""

    cuts: Cuts
    pool: Pool
    basis: SettingBasis
    memory_limit: int | None

    @cached_property
    def noiseless(self) -> Pipeline:
        """Without noise."""
        simulator = StatevectorBackend(self.memory_limit)
        return Pipeline(
            self.cuts, simulator, self.pool, Conditions(), self.basis, self.memory_limit
        )

    def prepared(self, batch: Batch) -> Prepared:
        """The plan of a batch, with its experiments."""
        return self.noiseless.preparation.prepare(batch.circuit, batch.observables)[0]

    def noisy(
        self,
        batch: Batch,
        forecasts: Mapping[int, FragmentForecast],
        mitigation: Mitigation | None,
    ) -> Pipeline:
        """With the noise of a device, about which something is done."""
        backend = ForecastBackend(forecasts, StatevectorBackend(self.memory_limit))
        return Pipeline(
            *(self.prepared(batch).plan, backend, self.pool, Conditions()),
            *(self.basis, self.memory_limit),
            mitigation=mitigation,
        )


class _Way:
    """A query, run whole or cut, on a device."""

    def __init__(self, simulator: Simulator, batch: Batch, target: Target) -> None:
        self.simulator, self.batch, self.target = simulator, batch, target
        self.prepared = simulator.prepared(batch)
        query, _, weights = batch.observables.entries(batch.observable)
        self.norm = float(np.bincount(query, np.abs(weights), 1).max())
        """The largest value that an observable can have."""

    @property
    def fits(self) -> bool:
        """Whether the device has qubits enough."""
        most = self.target.num_qubits
        return most is None or self.prepared.max_qubits <= most

    @cached_property
    def forecasts(self) -> dict[int, FragmentForecast]:
        """By the number of the fragment."""
        experiments = self.prepared.experiments
        return {e.fragment.index: FragmentForecast.of(e, self.target) for e in experiments}

    @property
    def noise(self) -> list[CircuitNoise]:
        """Of the fragments."""
        return [forecast.noise for forecast in self.forecasts.values()]

    @property
    def is_simulated(self) -> bool:
        """Whether it is narrow enough."""
        return self.prepared.max_qubits <= _SIMULATED

    @property
    def value(self) -> float:
        """Size of the largest value without noise; where unknown, the largest there may be."""
        if not self.is_simulated:
            return self.norm
        request = Request(self.batch, Accuracy(None, 0.0), "noise")
        try:
            found = self.simulator.noiseless.evaluate(request).values
        except PlanTooLargeError:
            return self.norm
        return float(np.abs(found).max(initial=0.0))

    @property
    def bound(self) -> float:
        """Variance times shots at most, without noise."""
        return self.prepared.plan.sampling_overhead * self.norm**2

    def shots(self, accuracy: Accuracy) -> int:
        """That a run takes, without anything done about noise."""
        request = Request(self.batch, accuracy, "price batch 0")  # as `price` names it
        if accuracy.shots is not None:
            return accuracy.shots * self.simulator.noiseless.num_circuits(request)
        if accuracy.budget is not None:
            return accuracy.budget
        wanted = min(self.bound / accuracy.precision**2, MOST_SHOTS)
        if self.is_simulated:
            with suppress(PlanTooLargeError):
                wanted = self.simulator.noiseless.price(request).optimal
        return min(ceil(wanted), accuracy.most or MOST_SHOTS)

    def stderr(self, total: int, accuracy: Accuracy, mitigation: Mitigation | None) -> float | None:
        """The largest standard error with so many shots; infinite: they are too few to run.

        None: it is too wide to be simulated.
        """
        if not self.is_simulated:
            return None
        own = Accuracy(None, 1.0, accuracy.allocation, budget=total)
        request = Request(self.batch, own, "noise")
        if accuracy.shots is not None:
            circuits = self.simulator.noiseless.num_circuits(request)
            own = replace(own, shots=max(1, total // max(1, circuits)), budget=None)
        pipeline = self.simulator.noisy(self.batch, self.forecasts, mitigation)
        try:
            found = pipeline.evaluate(replace(request, accuracy=own))
        except PlanTooLargeError:
            return None
        except InputError:
            return inf
        return float(found.stderrs.max(initial=0.0))


def forecast_noise(
    whole: tuple[Simulator, Batch],
    cut: tuple[Simulator, Batch],
    target: Target,
    accuracy: Accuracy,
    shots: int | None,
) -> NoisePrice:
    """How far values of a query are likely to be off on a device, whole and cut.

    Args:
        whole: The circuit as it is.
        cut: The same with its cuts.
        target: The device's.
        accuracy: What a run is asked for.
        shots: In all, of each way; None: as many as the cut circuit takes for that.

    Raises:
        BackendError: A fragment is wider than the device, or cannot be transpiled to it.
        InputError: A fragment has too many settings.
    """
    ways = {"whole": _Way(*whole, target), "cut": _Way(*cut, target)}
    total = max(1, ways["cut"].shots(accuracy)) if shots is None else shots  # constants take none
    uncut = None
    if ways["whole"].fits:
        with suppress(BackendError):  # no connected qubits take it
            uncut = CircuitNoise.of_all(ways["whole"].noise)
    price = noise_price(
        uncut,
        ways["cut"].noise,
        shots=total,
        value=ways["cut"].value,
        spreads=(ways["whole"].bound, ways["cut"].bound),
    )
    outlooks = []
    for own in price.outlooks:
        stderr = ways[own.way].stderr(total, accuracy, own.mitigation)
        outlooks.append(own if stderr is None else replace(own, stderr=stderr))
    return replace(price, outlooks=tuple(outlooks))
