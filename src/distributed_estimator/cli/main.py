"""`dest`: the verbs under one command, and one way for all of them to fail."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from .. import __version__
from ..errors import DistributedEstimatorError, InputError, TrainingStoppedError
from ._output import printable
from .costs import costs, predict
from .estimate import estimate
from .plan import plan
from .records import records
from .report import report
from .robustness import robustness
from .simulate import simulate
from .study import study
from .train import train

_ALSO = {
    "cuts": "--label",
    "default_precision": "--precision",
    "factors": "--noise-factors",
    "num_cuts": "--cuts",
    "sigma": "--straggler-shape",
    "slow": "--slow-worker",
    "stragglers": "--straggler-p",
}
"""Options by arguments of Python with other names."""

BAD_INPUT = 2
INTERRUPTED = 130


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dest")
@click.pass_context
def dest(context: click.Context) -> None:
    """Estimate and train circuits that do not fit the device, by cutting them."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for verb in (
    *(costs, estimate, plan, predict, records, report, robustness),
    *(simulate, study, train),
):
    dest.add_command(verb)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `dest` and returns its exit code.

    What a user can put right ends in one line on stderr and exit code 2. Anything else is a defect,
    and keeps its traceback.

    Args:
        arguments: The command line without the program's name; None: the process's own.
    """
    # A terminal that cannot draw a box should show a question mark, not end the program.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        with _warnings_shown():
            code = dest.main(arguments, prog_name="dest", standalone_mode=False)
    except (TrainingStoppedError, click.Abort) as error:
        return _fail(str(error) or "interrupted", INTERRUPTED)
    except click.ClickException as error:
        return _fail(error.format_message())
    except BrokenPipeError:
        # The reader (`| head`) has left; what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except InputError as error:
        return _fail(_with_options(str(error), sys.argv[1:] if arguments is None else arguments))
    except (DistributedEstimatorError, OSError) as error:
        return _fail(str(error))
    return code if isinstance(code, int) else 0


@contextmanager
def _warnings_shown() -> Iterator[None]:
    """Shows on stderr what the library warns of: a tracker that failed, say."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("dest: %(levelname)s: %(message)s"))
    logger = logging.getLogger("distributed_estimator")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _with_options(message: str, words: Sequence[str]) -> str:
    """A message with options of the verb in the place of Python's arguments.

    Those of a study stand in its file, by the names that the messages have. A word of the command
    line, such as a file of that name, is no argument.
    """
    command = dest.commands.get(words[0]) if words and words[0] != "study" else None
    options = [] if command is None else [p for p in command.params if isinstance(p, click.Option)]
    own = {str(option.name): option.opts[0] for option in options}
    typed = {name: option for name, option in _ALSO.items() if option in own.values()} | own
    return re.sub(
        r"(?<!parameter )`([a-z_]+)(\[\d+\])?`",
        lambda found: (
            f"`{typed[found[1]]}{found[2] or ''}`"
            if found[1] in typed and found[1] not in words
            else found[0]
        ),
        message,
    )


def _fail(message: str, code: int = BAD_INPUT) -> int:
    click.echo(f"dest: {' '.join(printable(message).split())}", err=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
