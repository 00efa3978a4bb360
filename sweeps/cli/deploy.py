"""`sweeps deploy`: the file to ship, within a budget on this device."""

import click

from segda.cli_command import Command
from sweeps.cli.options import examples, options


@click.command(
    "deploy",
    cls=Command,
    action="sweeps.cli.actions.deploy:deploy_action",
    epilog=examples(
        'sweeps deploy camvid_day_to_dusk --budget "latency_ms <= 30"',
        'sweeps deploy camvid_day_to_dusk --budget "latency_p90_ms <= 30" --budget "file_mb <= 10" --threads 4',
        "sweeps deploy camvid_day_to_dusk --candidates 5 --slim 0.3 --slim 0.5 --data-root camvid=/data/camvid",
    ),
)
@options("name")
@click.option(
    "--budget",
    "budgets",
    multiple=True,
    metavar="BOUND",
    help="What the file must keep, e.g. 'latency_ms <= 30' or 'agreement >= 0.98'; may be repeated.  "
    "[default: the constraints of the sweep file]",
)
@click.option(
    "--slim",
    "ratios",
    type=float,
    multiple=True,
    metavar="SHARE",
    default=(0.3,),
    show_default=True,
    help="Share of the channels to take out for further artefacts of each candidate; may be repeated.",
)
@click.option("--no-slim", is_flag=True, help="Take no channels out.")
@click.option(
    "--candidates",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many of the best trials to make artefacts of, in a sweep with finalists_of_each of each group.  "
    "[default: the finalists; of a sweep with one seed 3]",
)
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    help="What to measure on.  [default: what the sweep's trials computed on]",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="Threads of the processor to measure with.  [default: those of a trial, resources.cpus]",
)
@click.option("--again", is_flag=True, help="Measure again what was measured in company (¶).")
@options("store", "ledger", "roots")
def deploy_command(**_: object) -> None:
    """Make files of the best networks of the sweep NAME, and write the best that keeps every budget on this device.

    Of each candidate's checkpoint: fp32, int8 (on a GPU fp16), and both with fewer channels and new statistics. Each is compared
    with its network on real images, measured alone by what the sweep file says under deploy (else ONNX Runtime), and judged. The
    sweep's own criterion chooses, computed anew of each file as far as class maps tell it. Scores on target labels are only shown.

    The sweep's folder gets a folder deploy: winner/ (network, MODEL_CARD.md, winner.json), front.png, artefacts.json and all
    artefacts. What is there is not made or measured again, so the same command goes on after a kill, and another budget is cheap.

    \b
    Budgets are on: latency_ms, latency_p90_ms, latency_p95_ms, fps (one image at the training's size, from bytes to class map);
    file_mb (10^6 bytes), num_parameters, macs; agreement (share of pixels in which the file says what the trained network says);
    source/val/miou.

    Exit codes: 0 written, 2 something to correct, 3 no artefact keeps the budgets (the nearest are told), 75 ended by SIGTERM or
    SIGHUP.
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
