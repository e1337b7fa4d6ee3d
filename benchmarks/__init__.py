"""Benchmarks: ours and its counterpart, measured in the same run, in turns.

``python -m benchmarks.query|train_step|cuts|training|accuracy [--json] [--quick]``. Importing this
package pins the numeric libraries to one thread each, which has to happen before NumPy is loaded: a
ratio between two single threads says something about the methods, a ratio between two thread pools
does not.
"""

from __future__ import annotations

import os

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)

for _variable in _THREAD_VARIABLES:
    os.environ[_variable] = "1"
