"""Algorithm 1 of the paper: a batch of queries through its four stages, timed and recorded."""

from .pipeline import Evaluation as Evaluation
from .pipeline import Pipeline as Pipeline
from .pipeline import Price as Price
from .pipeline import Request as Request
from .preparation import Preparation as Preparation
from .preparation import Prepared as Prepared
from .rounds import MemoryLimit as MemoryLimit
from .rounds import Need as Need
from .rounds import RoundRequest as RoundRequest
from .rounds import in_bytes as in_bytes
