"""Expectation values of circuits that do not fit the device, by circuit cutting."""

import logging
from typing import TYPE_CHECKING, Any

from .cutting import AutoCut
from .estimator import DistributedEstimator, EstimatorOptions
from .records.environment import installed

if TYPE_CHECKING:
    from .gradient import FragmentGradient

__all__ = ["AutoCut", "DistributedEstimator", "EstimatorOptions", "FragmentGradient"]

__version__ = installed("distributed-estimator") or "unknown (not installed)"

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    # Imported when asked for: it needs the extra `ml`, the core does not.
    if name == "FragmentGradient":
        from .gradient import FragmentGradient

        return FragmentGradient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
