"""Expectation values of circuits that do not fit the device, by circuit cutting."""

import logging

from .cutting import AutoCut
from .estimator import DistributedEstimator, EstimatorOptions

__all__ = ["AutoCut", "DistributedEstimator", "EstimatorOptions"]

logging.getLogger(__name__).addHandler(logging.NullHandler())
