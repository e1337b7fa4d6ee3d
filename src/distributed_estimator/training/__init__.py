"""Training of quantum neural networks on a `DistributedEstimator`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .trained import TrainedNetwork

__all__ = ["TrainedNetwork"]


def __getattr__(name: str) -> Any:
    # Imported when asked for: it needs PyTorch, and configurations do not.
    if name == "TrainedNetwork":
        from .trained import TrainedNetwork

        return TrainedNetwork
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
