"""Warns of public names that the reference lacks."""

import sys
from importlib import import_module
from typing import Any

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.logging import getLogger

PACKAGES = (
    "distributed_estimator",
    "distributed_estimator.backends",
    "distributed_estimator.backends.fleet",
    "distributed_estimator.cutting",
    "distributed_estimator.execution",
    "distributed_estimator.execution.pools",
    "distributed_estimator.records",
    "distributed_estimator.reference",
    "distributed_estimator.simulation",
    "distributed_estimator.training.workloads",
)
"""Packages whose `__all__` is promised to users."""

_log = getLogger(__name__)


def check(app: Sphinx, environment: BuildEnvironment) -> None:
    """Warns of each name in the packages' `__all__` that no page documents."""
    documented = environment.domains.python_domain.objects
    for package in PACKAGES:
        module = import_module(package)
        for name in module.__all__:
            value = getattr(module, name)
            homes = {place.rpartition(".")[0] for place in documented if place.endswith(f".{name}")}
            if not any(getattr(sys.modules.get(home), name, None) is value for home in homes):
                _log.warning("%s.%s is public, and not in docs/reference/api", package, name)


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the extension."""
    app.connect("env-check-consistency", check)
    return {"version": "1", "parallel_read_safe": True}
