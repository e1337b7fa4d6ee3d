"""Devices by name: the simulated ones of IBM, and those of the user's account."""

from __future__ import annotations

import logging
from typing import Any

from ..errors import BackendError, InputError, MissingExtraError, close_to, shortened

__all__ = ["find_device"]

_OF_ACCOUNT = "ibm_"
_ACCOUNT = (
    "see `QiskitRuntimeService.save_account` of qiskit-ibm-runtime, or take a simulated device, "
    "such as fake_manila"
)


def find_device(name: str) -> Any:
    """A device as a Qiskit backend.

    Simulated ones are found by the name of their class, such as FakeManilaV2, or of their device,
    such as fake_manila. A name that begins with `ibm_` is one of the user's account, and only for
    such a name the service is asked.

    Raises:
        BackendError: The account, or the service, has no such device; why not is not repeated, as
            it may hold addresses or parts of a token.
        InputError: There is no simulated device of that name.
        MissingExtraError: The runtime is not installed.
    """
    try:
        from qiskit_ibm_runtime import fake_provider
    except ImportError as error:
        raise MissingExtraError("qiskit-ibm-runtime", "runtime", "a device") from error
    if name.lower().startswith(_OF_ACCOUNT):
        return _of_account(name)
    kinds = [getattr(fake_provider, each) for each in dir(fake_provider)]
    known = {kind.backend_name: kind for kind in kinds if hasattr(kind, "backend_name")}
    names = known | {kind.__name__: kind for kind in known.values()}
    folded = {each.lower().removesuffix("v2"): kind for each, kind in names.items()}
    kind = folded.get(name.lower().removesuffix("v2"))
    if kind is None:
        hint = close_to(name.lower().removesuffix("v2"), sorted(known))
        raise InputError(
            f"there is no simulated device of the name {shortened(name)} (those of an account "
            f"begin with {_OF_ACCOUNT}): {hint}"
        )
    return kind()


def _of_account(name: str) -> Any:
    """A device that the user's account has."""
    from qiskit_ibm_runtime import QiskitRuntimeService

    log = logging.getLogger("qiskit_ibm_runtime")
    level = log.level
    log.setLevel(logging.CRITICAL)  # it names instances and addresses
    try:
        service = QiskitRuntimeService()
    except Exception as error:
        raise BackendError(
            f"no account that works was found for {name} ({type(error).__name__}): {_ACCOUNT}"
        ) from None
    else:
        try:
            return service.backend(name)
        except Exception as error:
            raise BackendError(
                f"the account's service gave no device {name} ({type(error).__name__}): {_ACCOUNT}"
            ) from None
    finally:
        log.setLevel(level)
