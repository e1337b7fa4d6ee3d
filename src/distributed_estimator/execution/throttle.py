"""How fast jobs may be submitted to a device that says that it is asked too often."""

from __future__ import annotations

import math

_LONGEST_PAUSE = 5.0
_SHORTEST_PAUSE = 1e-3
_MOST_IN_VAIN = 100


class Throttle:
    """Holds submissions back after a refusal, then lets them go one by one, ever faster.

    Args:
        backoff: Seconds after the first refusal that does not say how long to wait; twice as long
            after each that follows it.
    """

    def __init__(self, backoff: float) -> None:
        self._backoff = backoff
        self._pause = 0.0
        self._until = -math.inf
        self._told_at = -math.inf
        self._in_vain = 0

    def holds(self, at: float) -> bool:
        """Whether nothing may be submitted now."""
        return at < self._until

    def wake(self, at: float) -> float | None:
        """When something may be submitted again; None: now."""
        return self._until if self.holds(at) else None

    def submitted(self, at: float) -> None:
        """A job went out: after a refusal, the next one follows at a distance that shrinks."""
        if self._pause:
            self._until = at + self._pause
            self._pause = self._pause / 2 if self._pause > _SHORTEST_PAUSE else 0.0

    def refused(self, at: float, retry_after: float, *, alone: bool) -> bool:
        """A job was refused; False where it is time to give up.

        Args:
            at: The time.
            retry_after: Seconds to wait, as the device says; 0: it does not say.
            alone: Whether nothing else is under way, whose end might help.
        """
        if at > self._told_at:  # what comes back together counts as one
            self._in_vain += alone
            self._told_at = at
        pause = self._backoff * 2.0 ** min(max(self._in_vain - 1, 0), 60)
        self._pause = retry_after or min(pause, _LONGEST_PAUSE)
        self._until = max(self._until, at + self._pause)
        return self._in_vain < _MOST_IN_VAIN

    def succeeded(self) -> None:
        """A task was done: asking again is not in vain."""
        self._in_vain = 0
