"""When, where and with which versions records were made, for the head of a page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..escape import one_line

Environment = Mapping[str, Any]


def machine_facts(environments: Sequence[Environment]) -> list[tuple[str, str]]:
    """Machine, threads, versions and commit, each distinct one once."""
    facts = [
        ("Machine", _distinct(_machine(one) for one in environments)),
        ("Threads", _distinct(_threads(one) for one in environments)),
        ("Versions", _distinct(_versions(one) for one in environments)),
        ("Commit", _distinct(_commit(one) for one in environments)),
    ]
    return [(name, told or "not known") for name, told in facts]


def _distinct(texts: Iterable[str]) -> str:
    return one_line("; ".join(dict.fromkeys(text for text in texts if text)), 600)


def _machine(environment: Environment) -> str:
    machine = environment.get("machine") or {}
    memory = machine.get("memory_bytes")
    parts = [
        environment.get("processor"),
        f"{machine['cpu_count']} processors" if machine.get("cpu_count") else None,
        f"{memory / 2**30:.0f} GiB" if isinstance(memory, int) else None,
        " ".join(str(machine[name]) for name in ("system", "architecture") if machine.get(name)),
    ]
    return ", ".join(str(part) for part in parts if part)


def _threads(environment: Environment) -> str:
    threads = environment.get("threads") or {}
    return ", ".join(f"{name} = {value or 'not set'}" for name, value in threads.items())


def _versions(environment: Environment) -> str:
    versions = environment.get("versions") or {}
    return ", ".join(f"{name} {value}" for name, value in versions.items() if value)


def _commit(environment: Environment) -> str:
    commit = environment.get("commit")
    if not commit:
        return ""
    return f"{commit}{', with uncommitted changes' if environment.get('dirty') else ''}"
