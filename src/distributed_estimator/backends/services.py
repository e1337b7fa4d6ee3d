"""What a service and its client say, without what an account could be known by.

Errors are recognised by the names of their classes, so that the client of no service has to be
installed or imported.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from qiskit.primitives import BaseSamplerV2

from ..errors import BackendError, DistributedEstimatorError, ThrottledError, UnreachableError

Read = TypeVar("Read")

_SECRETS = re.compile(
    r"\bhttps?://\S+|\bcrn:\S+|\b(?:Bearer|apikey)\s+\S+|[\w-]{32,}", re.IGNORECASE
)
"""Addresses, instances and tokens."""
SILENT = {
    "ApiError",
    "AuthenticationException",
    "IBMAccountError",
    "IBMApiError",
    "IBMNotAuthorizedError",
    "IBMRuntimeError",
    "OSError",  # of the network; those of `requests` are derived from it
    "ApiException",
}
"""Errors of a connection, whose texts may hold tokens, instances and addresses."""
_ACCOUNT = {"AuthenticationException", "IBMAccountError", "IBMNotAuthorizedError"}
_CLOSED = re.compile(r"\b(?:session|batch)\b[^.]*\b(?:closed|expired|ended)\b", re.IGNORECASE)
"""What a client or service says of a batch or session that takes no more jobs."""
_MESSAGE = re.compile(r'"message": *"([^"]+)"')
"""What a service says for people, in the text of an error."""
KEPT = "The service keeps the job: the same run, with its journal, fetches it"
FOUND = "If it arrived all the same, the next attempt finds it"
NOTHING = "Nothing was sent"
FAILED = "CANCELLED", "ERROR"
_GONE = 404, 410
_TOO_MANY = 429


def service_of(sampler: BaseSamplerV2, backend: Any) -> Any:
    """The service that keeps a sampler's jobs; None: there is none, or jobs cannot be tagged."""
    service = getattr(backend, "service", None)
    keeps = callable(getattr(service, "job", None)) and callable(getattr(service, "jobs", None))
    return service if keeps and hasattr(_environment(sampler), "job_tags") else None


def without_secrets(text: object) -> str:
    """A text of a service, without what an account could be known by.

    Example:
        >>> without_secrets("POST https://there.example/jobs failed: Bearer abc")
        'POST (left out) failed: (left out)'
    """
    return _SECRETS.sub("(left out)", str(text))


def read_from(sampler: BaseSamplerV2, backend: Any, read: Callable[[], Read]) -> Read:
    """What a device says of itself, which its client may have to ask the service for.

    Raises:
        UnreachableError: The service does not answer.
    """
    try:
        return read()
    except DistributedEstimatorError:
        raise
    except Exception as error:
        if service_of(sampler, backend) is None:
            raise
        failure = unreachable(error, "a device cannot be read", NOTHING)
    raise failure  # not above: a traceback would show the texts of what is handled there


def options_text(sampler: BaseSamplerV2) -> str | None:
    """Options of a sampler that are not the defaults, as JSON; None: it has no others.

    Those of its environment are left out: they name jobs, and change no result.
    """
    options: Any = getattr(sampler, "options", None)
    try:
        defaults = _plain(type(options)())
    except Exception:  # it takes arguments
        defaults = {}
    found = _plain(options)
    changed = _changed(found, defaults) if isinstance(found, dict) else None
    return without_secrets(json.dumps(changed, sort_keys=True, default=_kind)) if changed else None


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):  # of the runtime's newer samplers
        value = value.model_dump()
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, dict):
        return {str(name): _plain(own) for name, own in value.items() if name != "environment"}
    return value


def _changed(options: dict[str, Any], defaults: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in options.items():
        default = defaults.get(name) if isinstance(defaults, dict) else None
        if isinstance(value, dict):
            value = _changed(value, default)
            default = {}
        if not _is_same(value, default):
            found[name] = value
    return found


def _is_same(one: Any, other: Any) -> bool:
    same = one == other
    return same if isinstance(same, bool) else one is other


def _kind(value: object) -> str:
    return type(value).__name__


def _environment(sampler: BaseSamplerV2) -> Any:
    return getattr(getattr(sampler, "options", None), "environment", None)


def status(job: Any) -> str:
    """How far a job is, in the words of the runtime."""
    status = job.status()
    return str(getattr(status, "name", status)).upper()


def why_ended(job: Any, error: Exception) -> str | None:
    """Why a job has ended without a result, in one clause; None: it has not, as far as is known."""
    if is_gone(error):
        return "is no longer kept by the service: it has expired"
    if is_too_long(error):
        return (
            "took longer than it may: send fewer shots a circuit, with "
            "SamplerBackend(sampler, shots_per_circuit=...), or give jobs more time in the options "
            "of the sampler"
        )
    try:
        found = status(job)
        if found == "CANCELLED":
            return "was cancelled"
        if found == "ERROR":
            return f"failed: {without_secrets(job.error_message() or 'the service gave no reason')}"
    except Exception:
        return None
    return None


def is_too_long(error: Exception) -> bool:
    """Whether a job ended as it took longer than it may."""
    return "RuntimeJobMaxTimeoutError" in names_of(error)


def is_closed(error: Exception) -> bool:
    """Whether a job was refused as the batch or session that it was sent in is closed."""
    return bool(names_of(error) & SILENT) and _CLOSED.search(str(error)) is not None


def is_gone(error: Exception) -> bool:
    """Whether the service does not know a job, or not any more."""
    return "RuntimeJobNotFound" in names_of(error) or getattr(error, "status_code", None) in _GONE


def names_of(error: BaseException) -> set[str]:
    """Names of the class of an error, and of those that it is derived from."""
    return {kind.__name__ for kind in type(error).__mro__}


def unreachable(error: Exception, what: str, remedy: str) -> BackendError:
    """The error of a connection, with no more of its text than the service's own message."""
    kind = type(error).__name__
    if getattr(error, "status_code", None) == _TOO_MANY:
        return ThrottledError(f"{what}, as the service is asked too often ({kind})")
    if names_of(error) & _ACCOUNT:
        return UnreachableError(
            f"{what}, as the service refused the account ({kind}): see that it is saved, has not "
            f"expired and may use the device. {remedy}"
        )
    said = _MESSAGE.search(str(error))
    reason = "its text may name the account" if said is None else without_secrets(said[1])
    return UnreachableError(
        f"{what}, as the service cannot be reached, or gave no good answer ({kind}: {reason}). "
        f"{remedy}"
    )


def metrics_of(job: Any) -> dict[str, Any]:
    """What the service measured of a job; empty where it does not say."""
    try:
        found = job.metrics()
    except Exception:  # records are no reason to fail
        return {}
    return found if isinstance(found, dict) else {}


def times_of(metrics: dict[str, Any]) -> tuple[float, float, float] | None:
    """When a job arrived, started and ended, in seconds since 1970; None: that makes no sense."""
    stamps = metrics.get("timestamps") or {}
    try:
        times = [_seconds(stamps[name]) for name in ("created", "running", "finished")]
    except (KeyError, TypeError, ValueError):
        return None
    created, running, finished = times
    return (created, running, finished) if created <= running <= finished > created else None


def _seconds(stamp: Any) -> float:
    moment = stamp if isinstance(stamp, datetime) else datetime.fromisoformat(stamp)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def charged_seconds(metrics: dict[str, Any]) -> float | None:
    """Seconds that a job is charged for; None: the service does not say."""
    found = (metrics.get("usage") or {}).get("qpu_charge_time_seconds")
    return float(found) if isinstance(found, int | float) else None


def calibrated_at(job: Any) -> str | None:
    """When the device of a job was calibrated, ISO-8601; None: the service does not say."""
    try:
        moment = job.properties().last_update_date
        return datetime.fromtimestamp(_seconds(moment), UTC).isoformat(timespec="milliseconds")
    except Exception:  # it has none, or the service does not say
        return None
