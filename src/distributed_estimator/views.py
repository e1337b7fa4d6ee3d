"""What results and estimators show of themselves, as text and in notebooks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from html import escape
from itertools import islice
from typing import Any

import numpy as np
from qiskit.primitives import PrimitiveResult, PubResult

from .errors import short, shortened

_MOST_VALUES = 12
_UNITS = (
    *(("days", 86_400, 172_800), ("h", 3600, 7200), ("min", 60, 120), ("s", 1, 1)),
    *(("ms", 1e-3, 1e-3), ("µs", 1e-6, -math.inf)),
)
"""Units of time: their seconds, and from how many seconds on they are used."""
_STAGES = ("t_partition", "t_generate", "t_execute", "t_reconstruct")
_TOTALS = ("shots_total", "num_subexperiments", "num_circuits", "missing", "t_total", *_STAGES)


class Shown:
    """Shows what it is and its `_facts`, each with a name."""

    __slots__ = ()

    def _facts(self) -> Mapping[str, str]:
        raise NotImplementedError

    def __repr__(self) -> str:
        facts = self._facts()
        width = max(map(len, facts), default=0) + 2
        lines = (f"  {name:<{width}}{fact}" for name, fact in facts.items())
        return "\n".join([type(self).__name__, *lines])

    def _repr_html_(self) -> str:
        left = 'style="text-align: left"'
        rows = (
            f"<tr><th {left}>{escape(name)}</th><td {left}>{escape(fact)}</td></tr>"
            for name, fact in self._facts().items()
        )
        return f"<strong>{type(self).__name__}</strong><table>{''.join(rows)}</table>"


class EstimatorPubResult(Shown, PubResult):
    """Qiskit's result of a PUB, which shows values, standard errors and what they took."""

    __slots__ = ()

    def _facts(self) -> Mapping[str, str]:
        return _facts_of({"value": self})


class EstimatorResult(Shown, PrimitiveResult[PubResult]):
    """Qiskit's result of a run, which shows values, standard errors and what they took."""

    def _facts(self) -> Mapping[str, str]:
        return _facts_of({f"PUB {number}": pub for number, pub in enumerate(self)})


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
    # Programs that put results together themselves may leave out what these took.
    pubs = [pub for pub in results.values() if "query_id" in pub.metadata]
    if len(pubs) < len(results):
        return facts
    # PUBs on one circuit are evaluated together, and share what that took.
    batches = list({pub.metadata["query_id"]: pub.metadata for pub in pubs}.values())
    total = {key: sum(batch[key] for batch in batches) for key in _TOTALS}
    facts["precision"] = "; ".join(_precisions(pubs))
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


def _cuts(metadata: Mapping[str, Any]) -> str:
    cuts, fragments = metadata["num_cuts"], metadata["num_fragments"]
    widest = metadata["max_fragment_qubits"]
    return f"{cuts}, {counted(fragments, 'fragment')} of at most {counted(widest, 'qubit')}"


def changed(value: object) -> str:
    """A value as text; of a dataclass, only the fields that differ from their defaults.

    Example:
        >>> from distributed_estimator import AutoCut
        >>> changed(AutoCut(max_qubits=10, seed=3))
        'AutoCut(max_qubits=10, seed=3)'
    """
    if not is_dataclass(value):
        return shortened(value)
    return f"{type(value).__name__}({changes(value)})"


def changes(value: Any) -> str:
    """The fields of a dataclass that differ from their defaults, as text."""
    own = [(each, getattr(value, each.name)) for each in fields(value)]
    return ", ".join(
        f"{each.name}={changed(now)}"
        for each, now in own
        if now != (each.default if each.default_factory is MISSING else each.default_factory())
    )


def counted(number: int, noun: str) -> str:
    """A number with its noun: 1 cut, 2 cuts."""
    return f"1 {noun}" if number == 1 else f"{short(number)} {noun}s"


def significant(value: float, digits: int = 2) -> str:
    """A number to so many digits, without an exponent and with a minus sign.

    Example:
        >>> significant(0.0304), significant(-99.6), significant(432.1)
        ('0.030', '−100', '432')
    """
    if not value:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{places}f}".replace("-", "−")


def duration(seconds: float, digits: int = 3) -> str:
    """Seconds in the unit that people would use.

    Example:
        >>> duration(0.00125), duration(3.2), duration(23_423, 2), duration(1_561_261, 2)
        ('1.25 ms', '3.2 s', '6.5 h', '18 days')
    """
    if not seconds:
        return "0 s"
    unit, size = next((unit, size) for unit, size, least in _UNITS if seconds >= least)
    text = significant(seconds / size, digits)
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} {unit}"


def with_error(value: float, stderr: float) -> str:
    """A value to the second digit of its standard error.

    Example:
        >>> with_error(-0.0040460, 0.01532), with_error(0.5, 0.0)
        ('-0.004 ± 0.015', '0.5 ± 0')
        >>> with_error(0.5, math.nan)
        '0.5 (no standard error)'
    """
    if math.isnan(stderr):
        return f"{value:.12g} (no standard error)"
    if stderr == 0:
        return f"{value:.12g} ± 0"
    digits = max(0, 1 - math.floor(math.log10(stderr)))
    return f"{value:.{digits}f} ± {stderr:.{digits}f}"
