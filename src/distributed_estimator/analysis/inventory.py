"""What record files hold, and which of them cannot be read."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..errors import RecordError
from ..records import DeviceRecord, Header, QueryRecord, Record
from .frames import record_files, records_of, time_of


@dataclass
class Inventory:
    """What record files hold.

    Attributes:
        files: How many files.
        counts: Records by kind.
        runs: Run ids of the records.
        first: When the first query began, in UTC; None: there is no query.
        last: When the last query began.
        versions: By package, the versions that wrote the records; None: not installed.
        processors: Models of the processors that they were made on.
        commits: Of the source checkouts, with "+" where the source differed from the commit.
        unreadable: What is wrong with each file that is damaged or newer than this release; its
            records up to there count.
    """

    files: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    runs: set[str] = field(default_factory=set)
    first: datetime | None = None
    last: datetime | None = None
    versions: dict[str, set[str | None]] = field(default_factory=dict)
    processors: set[str] = field(default_factory=set)
    commits: set[str] = field(default_factory=set)
    unreadable: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The same for a JSON document, sets sorted."""
        return {
            "files": self.files,
            "records": dict(self.counts),
            "runs": len(self.runs),
            "first": None if self.first is None else self.first.isoformat(),
            "last": None if self.last is None else self.last.isoformat(),
            "versions": {name: _sorted(found) for name, found in self.versions.items()},
            "processors": _sorted(self.processors),
            "commits": _sorted(self.commits),
            "unreadable": self.unreadable,
        }

    def _add(self, record: Record) -> None:
        self.counts[record.kind] += 1
        if isinstance(record, Header):
            self._add_header(record)
        elif not isinstance(record, DeviceRecord):
            self.runs.add(record.run_id)
        began = time_of(record.started_at) if isinstance(record, QueryRecord) else None
        if began is not None:
            self.first = min(began, self.first or began)
            self.last = max(began, self.last or began)

    def _add_header(self, header: Header) -> None:
        for name, version in header.versions.items():
            self.versions.setdefault(name, set()).add(version)
        if header.processor is not None:
            self.processors.add(header.processor)
        if header.commit is not None:
            self.commits.add(header.commit + "+" * bool(header.dirty))


def take_inventory(path: str | os.PathLike[str]) -> Inventory:
    """Reads all records of a file or a folder, and goes on after a file that is damaged.

    Raises:
        RecordError: There is nothing at the path, or no record file.
    """
    inventory = Inventory()
    for file in record_files(path):
        inventory.files += 1
        try:
            for _, record in records_of(file, path):
                inventory._add(record)
        except RecordError as error:
            inventory.unreadable.append(str(error))
    return inventory


def _sorted(found: set[Any]) -> list[Any]:
    return sorted(found, key=lambda item: (item is None, item))
