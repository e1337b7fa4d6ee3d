"""What a run returns: Qiskit's results, which show themselves and have the record of the query."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from qiskit.primitives import DataBin, PrimitiveResult, PubResult

from .errors import short
from .records import QueryRecord, to_dict
from .views import Shown, counted, duration, with_error

_MOST_VALUES = 12
_STAGES = ("t_partition", "t_generate", "t_execute", "t_reconstruct")
_TOTALS = ("shots_total", "num_subexperiments", "num_circuits", "missing", "t_total", *_STAGES)
_BRIEF = (
    *("query_id", "num_cuts", "num_fragments", "max_fragment_qubits"),
    *("num_circuits", "num_subexperiments", "shots", "shots_total", "precision", "missing"),
    *("backend", "pool", "mitigation", "seed", "t_total", *_STAGES),
)


def brief(record: QueryRecord) -> dict[str, Any]:
    """The fields of a query record that results have as metadata."""
    fields = to_dict(record)
    return {name: fields[name] for name in _BRIEF}


class EstimatorPubResult(Shown, PubResult):
    """Qiskit's result of a PUB, which shows values, standard errors and what they took.

    Attributes:
        record: The whole record of the query, of which `metadata` has the most important fields;
            PUBs that were evaluated together share it. None: a program made the result itself.
    """

    __slots__ = ("record",)

    def __init__(
        self,
        data: DataBin,
        metadata: dict[str, Any] | None = None,
        record: QueryRecord | None = None,
    ) -> None:
        super().__init__(data, metadata)
        self.record = record

    def _facts(self) -> Mapping[str, str]:
        return _facts_of({"value": self})

    def _line(self) -> str:
        return _line_of([self], self._facts())


class EstimatorResult(Shown, PrimitiveResult[EstimatorPubResult]):
    """Qiskit's result of a run, which shows values, standard errors and what they took."""

    def _facts(self) -> Mapping[str, str]:
        return _facts_of({f"PUB {number}": pub for number, pub in enumerate(self)})

    def _line(self) -> str:
        return f"{counted(len(self), 'PUB')}; {_line_of(list(self), self._facts())}"


def _line_of(pubs: Sequence[PubResult], facts: Mapping[str, str]) -> str:
    """The value, or how many there are, and the facts that matter most."""
    count = sum(np.size(pub.data.evs) for pub in pubs)
    first = next(iter(facts.values())) if count == 1 else counted(count, "value")
    names = [name for name in ("precision", "shots", "cuts") if name in facts]
    return "; ".join([first, *(f"{name} {facts[name]}" for name in names)])


def _facts_of(results: Mapping[str, PubResult]) -> dict[str, str]:
    values = (
        (f"{name} {list(index) or ''}", with_error(value, pub.data.stds[index]))
        for name, pub in results.items()
        for index, value in np.ndenumerate(pub.data.evs)
    )
    facts = dict(islice(values, _MOST_VALUES))
    more = sum(np.size(pub.data.evs) for pub in results.values()) - len(facts)
    if more:
        facts["…"] = f"{more} more values"
    found = [getattr(pub, "record", None) for pub in results.values()]
    records = [record for record in found if record is not None]
    # Programs that put results together themselves leave out what these took.
    if len(records) < len(results):
        return facts
    # PUBs on one circuit are evaluated together, and share what that took.
    batches = list({record.query_id: record for record in records}.values())
    total = {key: sum(getattr(batch, key) for batch in batches) for key in _TOTALS}
    facts["precision"] = "; ".join(_precisions(list(results.values())))
    facts["shots"] = short(total["shots_total"])
    facts["circuits"] = f"{short(total['num_circuits'])} a binding; "
    facts["circuits"] += f"{short(total['num_subexperiments'])} runs in all rounds"
    facts["cuts"] = "; ".join(dict.fromkeys(map(_cuts, batches)))
    stages = (f"{name[2:]} {duration(total[name])}" for name in _STAGES)
    facts["time"] = f"{duration(total['t_total'])}: {', '.join(stages)}"
    if total["missing"]:
        facts["missing"] = f"{counted(total['missing'], 'task')} at the deadline"
    return facts


def _precisions(pubs: Sequence[PubResult]) -> Iterator[str]:
    """Whether standard errors are what was asked for, for each precision that was."""
    reached: dict[tuple[float | None, str], Any] = {}
    for pub in pubs:
        data = pub.metadata
        asked = data["precision"] if data["target_precision"] else 0.0
        key = asked, "root mean square" if data["error_norm"] == "rms" else "largest"
        reached[key] = np.maximum(reached.get(key, 0.0), data["reached_precision"])
    for (asked, norm), error in reached.items():
        found = f"{norm} standard error {error:.2g}"
        if asked is None:
            yield f"shots were set; {found}"
        else:
            met = "met" if error <= asked else "not met"
            yield f"{asked:g} {met}: {found}" if asked else "exact"


def _cuts(record: QueryRecord) -> str:
    fragments = counted(record.num_fragments, "fragment")
    widest = counted(record.max_fragment_qubits or 0, "qubit")
    return f"{record.num_cuts}, {fragments} of at most {widest}"
