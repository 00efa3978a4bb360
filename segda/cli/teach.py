"""`segda teach`."""

from pathlib import Path

import click

from segda.cli.completion import CONFIGS, files_or_shipped
from segda.cli.output import data_root_option, device_option, precision_option
from segda.cli.overrides import changes_argument
from segda.cli_command import Command

_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command("teach", cls=Command, action="segda.cli.actions.teach:teach_action")
@click.argument(
    "config_file",
    metavar="CONFIG.yaml",
    type=click.Path(dir_okay=False, path_type=Path),
    shell_complete=files_or_shipped(CONFIGS),
)
@click.argument("folder", type=_FOLDER)
@changes_argument()
@click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    metavar="CHECKPOINT",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A trained network; of several the mean of their probabilities counts. May be repeated.",
)
@click.option(
    "--predictions",
    type=_FOLDER,
    help="Instead of checkpoints: what another program says, one file per target training image and named like it; PNG of train "
    "ids (255: none), or .npy or .npz of probabilities [classes, height, width], of any size.",
)
@click.option(
    "--confidences",
    type=_FOLDER,
    help="With PNGs of ids: gray PNGs of 8 or 16 bits, named alike, whose largest value is a confidence of 1.",
)
@data_root_option
@click.option(
    "--temperature",
    default=1.0,
    show_default=True,
    help="Logits are divided by it before the softmax: above 1, less confidence.",
)
@click.option("--flip", is_flag=True, help="Let the networks look at each image mirrored too.")
@click.option(
    "--scale",
    "scales",
    multiple=True,
    type=float,
    metavar="FACTOR",
    help="Let the networks look at images of this many times the size that they were trained at; may be repeated.  [default: 1]",
)
@device_option
@precision_option
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True, help="Images at once.")
def teach_command(**_: object) -> None:
    """Label the target training images of CONFIG.yaml once, into the new folder FOLDER, for all students.

    The teacher is one network or several, larger than the students, or another program whose predictions lie in a folder.
    Each pixel gets a class and a confidence: the margin between the two most probable classes. No label of the target is
    opened, and checkpoints that were trained on such are refused.

    CONFIG.yaml is a student's configuration: its block `data` says which images, and the size of the labels. Teachers see
    images at the size that they were trained at. Words KEY=VALUE replace single values of CONFIG.yaml, e.g. data.height=256. What
    was interrupted goes on when the same command is given again.

    \b
    Students then say where the labels are, and which method learns from them:
      data:
        external_labels: {folder: labels}
      method: {name: external_labels}
    In a sweep the same stands under `base`; all its trials keep to the labels that the folder held when the sweep began.

    \b
    Examples:
      segda teach student.yaml labels --checkpoint runs/large/checkpoint.pt
      segda teach student.yaml labels --checkpoint a.pt --checkpoint b.pt --checkpoint c.pt --flip --scale 1 --scale 1.5
      segda teach student.yaml labels --predictions foundation_model/ids --confidences foundation_model/confidences
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
