"""The dispatcher on a virtual clock, and times that no policy can beat."""

from .bounds import expected_work, lower_bound
from .run import Latency, Services, SimulationResult, simulate
from .services import Load, Service, parse_service, predicted

__all__ = [
    "Latency",
    "Load",
    "Service",
    "Services",
    "SimulationResult",
    "expected_work",
    "lower_bound",
    "parse_service",
    "predicted",
    "simulate",
]


def __dir__() -> list[str]:
    return sorted(__all__)
