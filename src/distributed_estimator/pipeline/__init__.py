"""Algorithm 1 of the paper: a batch of queries through its four stages, timed and recorded."""

from .pipeline import Accuracy, Evaluation, Pipeline, Request
from .preparation import Preparation, Prepared
from .rounds import MemoryLimit, Need, RoundRequest, in_bytes

__all__ = [
    "Accuracy",
    "Evaluation",
    "MemoryLimit",
    "Need",
    "Pipeline",
    "Preparation",
    "Prepared",
    "Request",
    "RoundRequest",
    "in_bytes",
]
