"""The command `dest` from its first moment, so that Ctrl-C is understood before Qiskit is imported.

It is outside the package, so that nothing else has to be imported first.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable
    from sys import UnraisableHookArgs

INTERRUPTED = 130


def main() -> int:
    """Runs `dest` as this process, and returns its exit code.

    Ctrl-C ends it with one line and exit code 130: at once before and after the verb, in which it
    is a KeyboardInterrupt, so that the verb puts its files and workers in order.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # under nohup, say
        return _verb()()
    # The first to be registered and so the last to be called: from then on Python has no handlers.
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    # No exception here: what is being imported may take one for a failure of its own.
    signal.signal(signal.SIGINT, _leave)
    verb = _verb()
    sys.unraisablehook = _unraisable
    interrupts: list[None] = []

    def interrupt(*_: object) -> NoReturn:
        interrupts.append(None)
        raise KeyboardInterrupt

    try:
        signal.signal(signal.SIGINT, interrupt)
        code = verb()
        signal.signal(signal.SIGINT, _leave)
    except BaseException as error:
        # A module that is being imported may make an error of its own of the KeyboardInterrupt.
        if interrupts or isinstance(error, KeyboardInterrupt):
            _leave()
        raise
    if interrupts and code not in (0, INTERRUPTED):
        _leave()
    return code


def _verb() -> Callable[[], int]:
    from distributed_estimator.cli.main import main as verb

    return verb


def _leave(*_: object) -> NoReturn:
    os.write(2, b"dest: interrupted\n")
    os._exit(INTERRUPTED)


def _unraisable(unraisable: UnraisableHookArgs) -> None:
    """Python drops what is raised in a callback, and prints its traceback."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        _leave()
    sys.__unraisablehook__(unraisable)
