"""Algorithm 1 of the paper: a batch of queries through its four stages, timed and recorded."""

from .pipeline import Evaluation as Evaluation
from .pipeline import Pipeline as Pipeline
from .pipeline import Price as Price
from .pipeline import Request as Request
from .preparation import Prepared as Prepared
from .rounds import in_bytes as in_bytes
