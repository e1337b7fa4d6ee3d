"""A stand-in for IBM's service and its sampler, with the interface of the client.

Jobs are kept in a folder, one file each, so that another process finds them. Results come from Aer
with a seed from the job's own tag: the same job gives the same bits, whoever sent it and whenever.
What a service does wrong is asked for by a `Faults`, and what ends a client by `died`, which is
called at every step with its name.
"""

from __future__ import annotations

import hashlib
import pickle
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from qiskit.primitives import BaseSamplerV2, PrimitiveResult
from qiskit.primitives.containers.sampler_pub import SamplerPub
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit_aer.primitives import SamplerV2

TOKEN = "Zk3vQ8pLr1TnXy6WsB0aDc9EfGh2JiKmNoPqRsTuVwXy"
INSTANCE = "crn:v1:bluemix:public:quantum-computing:us-east:a/0123456789abcdef::"
ADDRESS = "https://quantum.example/api/v1"
SECRETS = f"{ADDRESS}/jobs?instance={INSTANCE} Bearer {TOKEN}"


@dataclass(frozen=True)
class Faults:
    """What goes wrong, each with the first so many jobs that it can befall.

    Attributes:
        cancelled: Jobs end as CANCELLED.
        failed: Jobs end as ERROR, with `message`.
        message: Of the service, for these.
        too_long: Jobs end as running longer than they may.
        expired: The service knows jobs no more when they are asked for by their ids.
        fewer_shots: Every circuit has half of its shots.
        half_done: Only the first half of the circuits has results.
        lost_results: Results of jobs that are done do not arrive.
        one_number: The sampler takes one number of shots a job.
        offline: Nothing is reached.
        account: Nothing is allowed.
        refused: The sampler finds fault with the circuits, before they are sent.
        lost_answers: Jobs arrive, and the sampler raises all the same.
    """

    cancelled: int = 0
    failed: int = 0
    message: str = f"Error code 6050; the device was recalibrated. {SECRETS}"
    too_long: int = 0
    expired: int = 0
    fewer_shots: int = 0
    half_done: int = 0
    lost_results: int = 0
    one_number: bool = False
    offline: bool = False
    account: bool = False
    refused: int = 0
    lost_answers: int = 0


def raised(kind: str, text: str) -> Exception:
    """An error of the runtime's client, or of the library it asks with."""
    if kind == "ConnectionError":
        from requests import exceptions
    else:
        from qiskit_ibm_runtime import exceptions
        from qiskit_ibm_runtime.accounts import exceptions as accounts

        if hasattr(accounts, kind):
            exceptions = accounts
    return getattr(exceptions, kind)(text)


class Service:
    """Jobs in a folder; copies in other processes see the same.

    Args:
        folder: Where jobs are.
        faults: What goes wrong.
        died: Called with the name of each step: "sending", "kept" (the client does not know it
            yet), "sent", "waiting", "done" (it does not have the results yet).
        seconds: That a job takes, after it was sent.
    """

    def __init__(
        self,
        folder: Path,
        faults: Faults | None = None,
        died: Callable[[str], None] = lambda step: None,
        seconds: float = 0.0,
    ) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.faults = Faults() if faults is None else faults
        self.died = died
        self.seconds = seconds
        self.asked: Counter[str] = Counter()
        self._met: Counter[str] = Counter()
        self._lock = threading.Lock()

    def meets(self, fault: str) -> bool:
        """Whether a fault befalls what is done now."""
        with self._lock:
            self._met[fault] += 1
            return self._met[fault] <= getattr(self.faults, fault)

    def reach(self, what: str) -> None:
        """Raises if the service is out of reach."""
        self.asked[what] += 1
        if self.faults.offline:
            raise raised("ConnectionError", f"Max retries exceeded with url: {SECRETS}")
        if self.faults.account:
            raise raised("AccountNotFoundError", f"no account for token {TOKEN}: {SECRETS}")

    def keep(self, backend: Device, pubs: Sequence[SamplerPub], tags: Sequence[str]) -> Job:
        """Take a job in."""
        self.reach("run")
        self.died("sending")
        fate = next((f for f in ("cancelled", "failed", "too_long") if self.meets(f)), "done")
        partly = next((f for f in ("fewer_shots", "half_done") if self.meets(f)), None)
        job = Job(self, uuid4().hex[:20], backend)
        content = {
            "pubs": [(p.circuit, p.parameter_values.as_array(), p.shots) for p in pubs],
            "tags": list(tags),
            "created": time.time(),
            "fate": fate,
            "partly": partly,
        }
        unfinished = self.folder / f"{job.job_id()}.new"
        unfinished.write_bytes(pickle.dumps(content))
        unfinished.rename(self.folder / f"{job.job_id()}.job")
        self.died("kept")
        if self.meets("lost_answers"):
            raise raised("IBMRuntimeError", f"Failed to run program: {SECRETS}")
        return job

    def ids(self) -> list[str]:
        """Of all jobs ever sent, the oldest first."""
        paths = sorted(self.folder.glob("*.job"), key=lambda path: path.stat().st_mtime_ns)
        return [path.stem for path in paths]

    def tags(self) -> Counter[str]:
        """How often a job was sent with each tag."""
        return Counter(tag for name in self.ids() for tag in self.content(name)["tags"])

    def content(self, name: str) -> dict[str, Any]:
        """What was sent."""
        found: dict[str, Any] = pickle.loads((self.folder / f"{name}.job").read_bytes())
        return found

    # --- the client's interface -------------------------------------------------------------------

    def job(self, job_id: str) -> Job:
        """As `QiskitRuntimeService.job`."""
        self.reach("job")
        if not (self.folder / f"{job_id}.job").exists() or self.meets("expired"):
            raise raised("RuntimeJobNotFound", f"Job not found: {job_id}")
        return Job(self, job_id)

    def jobs(
        self, limit: int | None = 10, job_tags: Sequence[str] = (), instance: str | None = None
    ) -> list[Job]:
        """As `QiskitRuntimeService.jobs`, the newest first."""
        self.reach("jobs")
        found = [n for n in self.ids()[::-1] if set(job_tags) <= set(self.content(n)["tags"])]
        return [Job(self, name) for name in found[:limit]]


class Job:
    """As `RuntimeJobV2`."""

    def __init__(self, service: Service, name: str, backend: Device | None = None) -> None:
        self._service = service
        self._name = name
        self._backend = backend

    def job_id(self) -> str:
        return self._name

    def backend(self) -> Device | None:
        return self._backend

    @property
    def _content(self) -> dict[str, Any]:
        return self._service.content(self._name)

    @property
    def tags(self) -> list[str]:
        found: list[str] = self._content["tags"]
        return found

    def status(self) -> str:
        self._service.reach("status")
        if time.time() < self._content["created"] + self._service.seconds:
            return "QUEUED"
        return {"cancelled": "CANCELLED", "done": "DONE"}.get(self._content["fate"], "ERROR")

    def error_message(self) -> str | None:
        return self._service.faults.message if self._content["fate"] == "failed" else None

    def cancel(self) -> None:
        content = self._content | {"fate": "cancelled"}
        (self._service.folder / f"{self._name}.job").write_bytes(pickle.dumps(content))

    def metrics(self) -> dict[str, Any]:
        created, half = self._content["created"], self._service.seconds / 2
        times = {"created": created, "running": created + half, "finished": created + 2 * half}
        stamps = {
            name: datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
            for name, at in times.items()
        }
        usage = {"qpu_charge_time_seconds": 2.5, "status": "complete"}
        return {"timestamps": stamps, "usage": usage}

    def properties(self) -> Any:
        return SimpleNamespace(last_update_date=datetime(2026, 11, 30, 4, 30, tzinfo=UTC))

    def result(self) -> PrimitiveResult[Any]:
        service = self._service
        service.reach("result")
        service.died("waiting")
        content = self._content
        left = content["created"] + service.seconds - time.time()
        if left > 0:
            time.sleep(left)
        if content["fate"] == "cancelled":
            raise raised("RuntimeInvalidStateError", f"Job {self._name} was cancelled. {SECRETS}")
        if content["fate"] == "failed":
            raise raised("RuntimeJobFailureError", f"Unable to retrieve result. {SECRETS}")
        if content["fate"] == "too_long":
            raise raised("RuntimeJobMaxTimeoutError", f"Ran too long. {SECRETS}")
        if service.meets("lost_results"):
            raise raised("ConnectionError", f"Read timed out: {SECRETS}")
        found = _results(content)
        service.died("done")
        return found


def _results(content: dict[str, Any]) -> PrimitiveResult[Any]:
    pubs, partly = content["pubs"], content["partly"]
    if partly == "half_done":
        pubs = pubs[: len(pubs) // 2]
    if partly == "fewer_shots":
        pubs = [(circuit, values, max(1, shots // 2)) for circuit, values, shots in pubs]
    seed = int(hashlib.sha256(content["tags"][-1].encode()).hexdigest()[:7], 16)
    aer = SamplerV2(seed=seed, options={"backend_options": {"max_parallel_threads": 1}})
    return aer.run([(c, v if v.size else None, shots) for c, v, shots in pubs]).result()


class Device(GenericBackendV2):
    """A device of the service."""

    def __init__(self, service: Service, name: str = "stand_in", num_qubits: int = 5) -> None:
        super().__init__(num_qubits, noise_info=False, seed=1)
        self.name = name
        self.service = service
        self._instance = INSTANCE

    def __reduce__(self) -> Any:
        raise TypeError("a connection does not pickle")


@dataclass
class Environment:
    """As `EnvironmentOptions`."""

    log_level: str = "WARNING"
    job_tags: list[str] | None = None


@dataclass
class Twirling:
    """As `TwirlingOptions`, as far as it goes."""

    enable_gates: bool = False


@dataclass
class Options:
    """As `SamplerOptions`, as far as it goes."""

    default_shots: int = 4096
    twirling: Twirling = field(default_factory=Twirling)
    environment: Environment = field(default_factory=Environment)


class Sampler(BaseSamplerV2):
    """As the runtime's, with a device of the stand-in."""

    def __init__(self, mode: Device, options: Options | None = None) -> None:
        self._mode: Any = None
        self._backend = mode
        self._options = replace(Options() if options is None else options)

    @property
    def options(self) -> Options:
        return self._options

    @property
    def mode(self) -> Any:
        return self._mode

    def backend(self) -> Device:
        return self._backend

    def run(self, pubs: Any, *, shots: int | None = None) -> Job:
        coerced = [SamplerPub.coerce(pub, shots) for pub in pubs]
        service = self._backend.service
        if service.faults.one_number and len({pub.shots for pub in coerced}) > 1:
            raise raised("IBMInputValueError", "all pubs must have the same number of shots")
        if service.meets("refused"):
            raise raised("IBMInputValueError", f"the gate `foo` is unknown, see {SECRETS}")
        return service.keep(self._backend, coerced, self._options.environment.job_tags or [])


def sampler_of(folder: Path, *, name: str = "stand_in", **options: Any) -> Sampler:
    """A sampler of a service in a folder.

    Args:
        folder: Where its jobs are.
        name: Of the device.
        **options: See `Service`.
    """
    return Sampler(Device(Service(folder, **options), name))
