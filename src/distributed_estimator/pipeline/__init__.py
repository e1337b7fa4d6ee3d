"""Algorithm 1 of the paper: a batch of queries through its four stages, timed and recorded."""

from .memory import MemoryLimit, Need, in_bytes
from .pipeline import Accuracy, Evaluation, Pipeline, Request
from .preparation import Preparation, Prepared
from .rounds import RoundRequest

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
