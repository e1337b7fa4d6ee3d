"""`dest`: the verbs under one command, and one way for all of them to fail."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module

import click

from .. import __version__
from ..errors import DistributedEstimatorError, RecordError, TrainingStoppedError, close_to

VERBS = {
    "classify": "Classify new rows with a trained network.",
    "costs": "Predict what a query costs, from records of other queries.",
    "estimate": "Estimate expectation values of a circuit in a file.",
    "plan": "Say whether a circuit fits, what it costs, and how to cut it.",
    "records": "Sum up records, or ask them in SQL.",
    "report": "Make the report page of a training run.",
    "robustness": "Measure a trained network's accuracy under noise and attack.",
    "simulate": "Simulate a run on any number of workers.",
    "study": "Run the paper's protocol, or a matrix of your own, and report on it.",
    "train": "Train a quantum neural network on a data set.",
}
"""The first line of each verb's help; a module of its name is imported when it is asked for."""

_RENAMED = {"predict": "costs"}
"""Modules of names that verbs had in the release before."""

_ALSO = {
    "CutAt": "--cut-at",
    "cuts": "--label",
    "default_precision": "--precision",
    "factors": "--noise-factors",
    "mitigation": "--mitigate",
    "num_cuts": "--cuts",
    "probabilities": "--probabilities",
    "sigma": "--straggler-shape",
    "slow": "--slow-worker",
    "stragglers": "--straggler-p",
}
"""Options by arguments of Python with other names."""

BAD_INPUT = 2
INTERRUPTED = 130


class _Verbs(click.Group):
    """Imports a verb's module when it is asked for: most import Qiskit, and some PyTorch."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(VERBS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        is_word = name.isidentifier() and not ctx.resilient_parsing
        if is_word and self.get_command(ctx, name) is None:
            raise click.UsageError(f"`{name}` is no verb: {close_to(name, list(VERBS))}", ctx)
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = _RENAMED.get(cmd_name, cmd_name)
        if module not in VERBS:
            return None
        command = getattr(import_module(f".{module}", __package__), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(VERBS.items()))


@click.group(
    cls=_Verbs,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="dest")
@click.pass_context
def dest(context: click.Context) -> None:
    """Estimate and train circuits that do not fit the device, by cutting them."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


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
    except RecordError as error:  # of fields, not of options
        return _fail(str(error))
    except DistributedEstimatorError as error:
        return _fail(_with_options(str(error), sys.argv[1:] if arguments is None else arguments))
    except OSError as error:
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
    context = click.Context(dest)
    command = dest.get_command(context, words[0]) if words and words[0] != "study" else None
    options = [] if command is None else [p for p in command.params if isinstance(p, click.Option)]
    own = {str(option.name): option.opts[0] for option in options}
    typed = {name: option for name, option in _ALSO.items() if option in own.values()} | own
    if "--max-qubits" in own.values():
        message = re.sub(r"\bAutoCut\(max_qubits=(\d+)\)", r"`--max-qubits \1`", message)
    return re.sub(
        r"(?<!parameter )`([A-Za-z_]+)(\[\d+\])?`",
        lambda found: (
            f"`{typed[found[1]]}{found[2] or ''}`"
            if found[1] in typed and found[1] not in words
            else found[0]
        ),
        message,
    )


def _fail(message: str, code: int = BAD_INPUT) -> int:
    from ._output import printable  # with much that `dest --help` needs nothing of

    click.echo(f"dest: {' '.join(printable(message).split())}", err=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
