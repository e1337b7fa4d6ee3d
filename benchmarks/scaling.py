"""How time falls with workers: a fleet, processors, the reference, and the simulation of a run.

``python -m benchmarks.scaling [--json] [--quick] [--part NAME] [--repeats N]``

fleet       A simulated fleet of 16 equal devices that take 50 ms a job, whatever is in it, and a
            thread for each job under way. A batch of 120 queries on 8 qubits with 3 cuts is 7200
            circuits, in 288 jobs of at most 25; a single query is 60 jobs of one circuit. The
            1-worker run's task records then predict the others by simulation.
processes   A CPU-bound batch, exact values of circuits with one cut and fragments of 14 and of 16
            qubits: one process against two. They are up, and have their plan, before the time
            starts. Every process has one thread for linear algebra.
reference   One query on 4 qubits, by the paper's pipeline and by ours, on the same Aer sampler, on
            1 and on 16 threads.
simulation  What the simulator itself takes for 200,000 tasks on 10,000 workers.

Times are those of whole `run` calls with a plan that is there already; ratios are of medians over
contestants in turns. Values are compared bit by bit: the number of workers may not change them.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks._harness import Timing, progress, take_turns
