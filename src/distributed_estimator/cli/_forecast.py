"""What a query will cut and run, before anything runs."""

from __future__ import annotations

from dataclasses import dataclass

from ..analysis.costs.features import Features
from ..cutting import CutPlan
from ..errors import InputError
from ..subexperiments import FragmentExperiment, Observables, restrict
from ..subexperiments.observables import parse
from ._query import Query


@dataclass(frozen=True, eq=False)
class Forecast:
    """A plan and the circuits it takes to measure an observable.

    Attributes:
        plan: The plan, without what the observable cannot see.
        experiments: What is run of each fragment.
    """

    plan: CutPlan
    experiments: tuple[FragmentExperiment, ...]

    @classmethod
    def of(cls, query: Query) -> Forecast:
        """Plans a query, as running it would.

        Raises:
            InputError: The cuts or the observable do not fit the circuit.
        """
        whole = CutPlan.build(query.circuit, query.cuts)
        array = parse(query.observable, query.circuit.num_qubits)
        observables = Observables.gather(array.sparse_observables_array().ravel())
        reached = whole.for_observables(observables.support)
        experiments = (
            FragmentExperiment(
                fragment,
                tuple(restrict(observables.terms, fragment)[0]),
                query.options.setting_basis,
            )
            for fragment in reached.fragments
        )
        return cls(reached, tuple(experiments))

    @property
    def settings(self) -> tuple[int, ...]:
        """Settings of each fragment."""
        return tuple(e.fragment.num_settings(e.basis) for e in self.experiments)

    @property
    def groups(self) -> tuple[int, ...]:
        """Measurement groups of each fragment; each group is run in every setting."""
        return tuple(len(e.groups) for e in self.experiments)

    @property
    def circuits(self) -> tuple[int, ...]:
        """Circuits of each fragment that are run; those whose outcome is sure are not."""
        return tuple(0 if e.is_trivial else e.num_circuits for e in self.experiments)

    @property
    def max_qubits(self) -> int:
        """Qubits of the widest fragment that is run; 0 where none is."""
        return max((e.fragment.num_qubits for e in self.experiments if not e.is_trivial), default=0)


def features_of(query: Query, forecast: Forecast) -> Features:
    """What the query's record will say of it.

    Raises:
        InputError: It asks for a precision: what that takes shows only in its run.
    """
    options = query.options
    if options.shots is None and options.default_precision > 0:
        raise InputError(
            "what a precision costs shows only when it runs: give `--shots N` or `--exact` to "
            "predict a cost"
        )
    plan, circuits = forecast.plan, sum(forecast.circuits)
    num_qubits = query.circuit.num_qubits
    return Features(
        num_qubits=num_qubits,
        depth=plan.circuit.depth(),
        widest_fragment=forecast.max_qubits,
        num_cuts=plan.num_cuts,
        num_fragments=plan.num_fragments,
        num_circuits=circuits,
        num_subexperiments=circuits,
        num_queries=1,
        shots=0 if options.shots is None else options.shots,
        workers=query.workers,
    )
