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
    results         what a run returns
    reconstruction  values, standard errors and derivatives from fragment tensors
    records         what is written down: query, task, training and device records
    reference       the paper's own pipeline, for comparison
    training        data, models, the training loop, checkpoints, robustness
    study           many runs from one file: the paper's research questions
    simulation      the dispatcher on a virtual clock: how long it would take elsewhere
    analysis        tables, charts, reports and the cost model, from records alone
    cli             the command `dest`, one module a verb
    checks, errors, forks   arguments refused, the exception tree, what starts afresh in a fork
    views           what objects show of themselves
"""

import logging
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cutting import AutoCut, CutAt, CutPlan
    from .errors import (
        BackendError,
        CheckpointError,
        DeadlineError,
        DistributedEstimatorError,
        InputError,
        MissingExtraError,
        PlanTooLargeError,
        PoolError,
        PrecisionWarning,
        RecordError,
        RunCancelledError,
        TrainingStoppedError,
    )
    from .estimator import DistributedEstimator, EstimatorOptions
    from .execution import Policy
    from .gradient import FragmentGradient
    from .subexperiments import Mitigation, Zne
    from .training.trained import TrainedNetwork

__all__ = [
    "AutoCut",
    "BackendError",
    "CheckpointError",
    "CutAt",
    "CutPlan",
    "DeadlineError",
    "DistributedEstimator",
    "DistributedEstimatorError",
    "EstimatorOptions",
    "FragmentGradient",
    "InputError",
    "MissingExtraError",
    "Mitigation",
    "PlanTooLargeError",
    "Policy",
    "PoolError",
    "PrecisionWarning",
    "RecordError",
    "RunCancelledError",
    "TrainedNetwork",
    "TrainingStoppedError",
    "Zne",
]

try:
    __version__ = version("distributed-estimator")
except PackageNotFoundError:
    __version__ = "unknown (not installed)"

logging.getLogger(__name__).addHandler(logging.NullHandler())

_LATER = {
    **dict.fromkeys(("AutoCut", "CutAt", "CutPlan"), "cutting"),
    **dict.fromkeys(("DistributedEstimator", "EstimatorOptions"), "estimator"),
    **dict.fromkeys(("Mitigation", "Zne"), "subexperiments"),
    "Policy": "execution",
    "FragmentGradient": "gradient",
    "TrainedNetwork": "training.trained",
}
"""Modules of the names above; those of all others are errors."""
_PACKAGES = ("backends", "cutting", "errors", "execution", "records", "reference", "simulation")


def __getattr__(name: str) -> Any:
    """Imports what is asked for: Qiskit takes long, and what trains the extra `ml`."""
    if name in __all__:
        return getattr(import_module(f".{_LATER.get(name, 'errors')}", __name__), name)
    if name in _PACKAGES:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
