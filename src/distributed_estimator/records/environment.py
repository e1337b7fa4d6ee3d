"""What a header says of the process: its processor, its threads and the source it runs from."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_CPU_INFO = Path("/proc/cpuinfo")
_PACKAGE = Path(__file__).parents[1]
_GIT_SECONDS = 1.0


@dataclass(frozen=True)
class Machine:
    """Where records were made; names neither the host nor the user. None: not known."""

    system: str
    architecture: str
    cpu_count: int | None
    memory_bytes: int | None

    @classmethod
    def current(cls) -> Machine:
        """Describes the machine this process runs on."""
        try:
            memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (AttributeError, OSError, ValueError):
            memory = None
        return cls(platform.system(), platform.machine(), os.cpu_count(), memory)


@dataclass(frozen=True)
class Checkout:
    """A commit, and whether the package differs from it; None: not known, or installed."""

    commit: str | None = None
    dirty: bool | None = None


def installed(package: str) -> str | None:
    """The version of a package; None: it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def processor_model(cpu_info: Path = _CPU_INFO) -> str | None:
    """What the processor calls itself, such as "AMD EPYC 7763"; None: it does not say."""
    try:
        with cpu_info.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() == "model name":
                    return value.strip() or None
    except OSError:  # no Linux
        return platform.processor() or None
    return None


def thread_limits() -> dict[str, str | None]:
    """The variables that limit linear algebra's threads, and the processors we may run on."""
    limits = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    usable = usable_processors()
    return limits | {"usable_cpus": None if usable is None else str(usable)}


def usable_processors() -> int | None:
    """How many processors this process may run on; None: the system does not say."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # this system ties processes to no processors
        return os.cpu_count()


@cache
def source_checkout(package: Path = _PACKAGE) -> Checkout:
    """The checkout that a package runs from, as git says; an installed package has none.

    `dirty` looks at the package's own sources, untracked files included, not at files beside them.

    Args:
        package: Folder of the package: `src/NAME` in a checkout of its own.
    """
    root = package.parents[1]
    # Variables of a git that runs us, such as from a hook, would have it speak of another checkout.
    environment = {name: value for name, value in os.environ.items() if name[:4] != "GIT_"}
    command = ["git", "-c", "core.fsmonitor=false", "--no-optional-locks", "-C", os.fspath(root)]
    command += ["status", "--porcelain=v2", "--branch", "--untracked-files=normal"]
    command += ["--", "src", "pyproject.toml"]
    try:
        project = (root / "pyproject.toml").read_text("utf-8")
        is_ours = package.parent.name == "src" and '\nname = "distributed-estimator"\n' in project
        if not (is_ours and (root / ".git").exists()):
            return Checkout()
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_GIT_SECONDS,
            env=environment,
            check=True,
        )
    except (OSError, UnicodeDecodeError, subprocess.SubprocessError):
        return Checkout()  # no project here, no git, a slow disk, another user's files
    lines = done.stdout.decode("ascii", "replace").splitlines()
    commits = [line.removeprefix("# branch.oid ") for line in lines if "# branch.oid " in line]
    if not commits or commits[0] == "(initial)":
        return Checkout()
    return Checkout(commits[0], any(not line.startswith("#") for line in lines))
