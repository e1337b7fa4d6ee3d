"""Expectation values of circuits that do not fit the device, by circuit cutting.

From the caller's side to the device's and back::

    estimator       DistributedEstimator: PUBs in, results and jobs out (`pubs` reads them)
    gradient        FragmentGradient: derivatives at the cost of a fragment
    probabilities   of the outcomes of some qubits, and the nearest distribution
    pipeline        Algorithm 1 of the paper: prepare, check memory, run rounds, read the values
    cutting         which gates and wires are cut, into which fragments, joined by which cores
    subexperiments  what is run of a fragment, with how many shots, as which tasks
    execution       when and where tasks run: policies, the dispatcher, pools, the journal
    backends        how they run: a local simulator, any Qiskit sampler, several of these, a fleet
    reconstruction  values, standard errors and derivatives from fragment tensors
    records         what is written down: query, task, training and device records
    reference       the paper's own pipeline, for comparison
    training        data, models, the training loop, checkpoints, robustness
    study           many runs from one file: the paper's research questions
    simulation      the dispatcher on a virtual clock: how long it would take elsewhere
    analysis        tables, charts, reports and the cost model, from records alone
    cli             the command `dest`, one module a verb
    checks, errors, forks   arguments refused, the exception tree, what starts afresh in a fork
    views           what results and estimators show of themselves
"""

import logging
from typing import TYPE_CHECKING, Any

from .cutting import AutoCut, CutAt
from .estimator import DistributedEstimator, EstimatorOptions
from .records.environment import installed
from .subexperiments import Mitigation, Zne

if TYPE_CHECKING:
    from .gradient import FragmentGradient
    from .training.trained import TrainedNetwork

__all__ = [
    "AutoCut",
    "CutAt",
    "DistributedEstimator",
    "EstimatorOptions",
    "FragmentGradient",
    "Mitigation",
    "TrainedNetwork",
    "Zne",
]

__version__ = installed("distributed-estimator") or "unknown (not installed)"

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    # Imported when asked for: they need the extra `ml`, the core does not.
    if name == "FragmentGradient":
        from .gradient import FragmentGradient

        return FragmentGradient
    if name == "TrainedNetwork":
        from .training.trained import TrainedNetwork

        return TrainedNetwork
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
