"""Works on their way to other processes: pickled once each, refused before anything is sent."""

from __future__ import annotations

import threading
from collections import OrderedDict

import cloudpickle

from ...errors import InputError
from ..messages import Work

_MOST_PACKED = 8
_MOST_BYTES = 256 << 20


class Packer:
    """Pickles works, and keeps the last few."""

    def __init__(self) -> None:
        self._packed: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def pack(self, work: Work) -> bytes:
        """The work, pickled; by value where its classes are the caller's own script's.

        Raises:
            InputError: It cannot be sent to another process.
        """
        with self._lock:
            if work.key not in self._packed:
                self._packed[work.key] = _pickled(work)
                while len(self._packed) > 1 and (
                    len(self._packed) > _MOST_PACKED
                    or sum(map(len, self._packed.values())) > _MOST_BYTES
                ):
                    self._packed.popitem(last=False)
            return self._packed[work.key]


def _pickled(work: Work) -> bytes:
    try:
        return bytes(cloudpickle.dumps(work))
    except Exception as error:
        raise InputError(
            f"`backend` cannot be sent to another process ({type(error).__name__}: {error}): use "
            'pool="threads", or a backend that pickles'
        ) from error
