"""`dest robustness DIR`: how the network of a run does on perturbed samples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..analysis.accuracy import ATTACK_NAMES, AccuracyPoint, percent
from ..training.config import AttackConfig
from ..views import duration
from ._options import FOLDER, PATH, Verb, examples, json_option, options_of, take
from ._output import print_files, print_json, print_table, printable, progress_bar

if TYPE_CHECKING:
    from ..training.robustness import RobustnessResult


@click.command(
    cls=Verb,
    short_help="Measure a trained network's accuracy under noise and attack.",
    epilog=examples("dest robustness runs/iris --attack fgsm --epsilon 0,0.1,0.2"),
)
@click.argument("folder", type=FOLDER, metavar="DIR")
@options_of(AttackConfig)
@click.option("--exact", is_flag=True, help="Without shots, whatever the run was trained with.")
@click.option(
    "--out",
    type=PATH,
    help="The result's JSON file; figure and query log go beside it.  "
    "[default: DIR/robustness.json]",
)
@click.option("--replace", is_flag=True, help="Replace an earlier result at that place.")
@click.option("--figure/--no-figure", default=True, help="Draw accuracy over magnitude.")
@json_option
def robustness(
    folder: Path,
    out: Path | None,
    replace: bool,
    exact: bool,
    figure: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Perturb the test samples of the run in DIR, and report the accuracy at each magnitude.

    Gaussian noise, FGSM and PGD move the scaled features, clipped to their range; the gradients go
    through the cut circuit. The summary is the paper's: the mean accuracy over all magnitudes but
    0, averaged over Gaussian noise and FGSM.

    DIR is the folder of a `dest train`, finished or not; its files are not changed.
    """
    from ..training.robustness import RobustnessFiles, evaluate_robustness
    from ..training.runs import RunFolder

    config = take(AttackConfig, settings)
    files = RobustnessFiles(folder / "robustness.json" if out is None else out, replace)
    with progress_bar("attacking") as update:
        result = evaluate_robustness(
            RunFolder(folder),
            config,
            files,
            exact=exact,
            figure=figure,
            advance=lambda done, total: update(completed=done, total=total, about="evaluations"),
        )
    paths = {"result": files.result, "figure": files.figure, "queries": files.queries}
    written = {name: str(path) for name, path in paths.items() if path.exists()}
    if as_json:
        print_json({**result.as_dict(), "files": written})
    else:
        _print_text(result)
        print_files(written)


def _print_text(result: RobustnessResult) -> None:
    measured, totals = result.measured, result.totals
    clean = measured.clean
    click.echo(printable(result.title))
    click.echo(
        f"{measured.samples} test samples, clean accuracy {percent(clean.accuracy)} "
        f"({_interval(clean)}), loss {clean.loss:.4f}"
    )
    for curve in measured.curves:
        columns = ("σ" if curve.attack == "gaussian" else "ε", "accuracy", "95 %", "loss")
        rows = [
            (f"{p.magnitude:g}", percent(p.accuracy), _interval(p), f"{p.loss:.4f}")
            for p in curve.points
        ]
        print_table(columns, rows, ATTACK_NAMES[curve.attack], left=0)
    means = ", ".join(
        f"{ATTACK_NAMES[c.attack]} {percent(c.mean_accuracy)}" for c in measured.curves
    )
    click.echo(f"mean accuracy over magnitudes above 0: {means}")
    if measured.summary is not None:
        click.echo(f"summary (without PGD): {percent(measured.summary)}")
    click.echo(
        f"{duration(result.seconds)} for {totals.queries} values and gradients, "
        f"{totals.subexperiments} subexperiments, {totals.shots} shots"
    )


def _interval(point: AccuracyPoint) -> str:
    return f"{percent(point.low)} to {percent(point.high)}"
