"""What `segda predict` does."""

from pathlib import Path
from typing import Literal

from segda.cli.output import output
from segda.datasets.listing import in_words
from segda.file_prediction import predict_files
from segda.prediction import SeenSize
from segda.submission import predict_submission


def predict_action(
    checkpoint: Path,
    sources: tuple[Path, ...],
    destination: Path,
    others: tuple[Path, ...],
    window: int,
    overlap: int,
    batch_size: int,
    bands: tuple[int, ...] | None,
    stretch: tuple[str, str] | None,
    with_confidence: bool,
    size: SeenSize | None,
    device: str,
    precision: Literal["auto", "fp32", "bf16", "fp16"],
    overlay: bool,
    submission: Literal["loveda"] | None,
    overwrite: bool,
) -> None:
    """Do `segda predict`; the arguments are the command's."""
    if submission is not None:
        _submit(
            (checkpoint, *others),
            sources[0],
            destination,
            size=size,
            overwrite=overwrite,
            device=device,
            precision=precision,
        )
        return
    done = predict_files(
        (checkpoint, *others),
        sources,
        destination,
        size=size,
        window=window,
        overlap=overlap,
        batch_size=batch_size,
        bands=bands,
        stretch=stretch,
        with_confidence=with_confidence,
        with_overlay=overlay,
        overwrite=overwrite,
        device=device,
        precision=precision,
    )
    console = output()
    if len(sources) > 1 or sources[0].is_dir():
        left = f", {sum(map(len, done.left.values()))} left alone ({in_words(done.left)})" if done.left else ""
        console.print(
            f"{len(done.written)} predicted, {len(done.skipped)} were there{left}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    console.print(f"written: {destination}", highlight=False, soft_wrap=True)


def _submit(
    checkpoints: tuple[Path, ...],
    source: Path,
    destination: Path,
    *,
    size: SeenSize | None,
    overwrite: bool,
    device: str,
    precision: Literal["auto", "fp32", "bf16", "fp16"],
) -> None:
    made = predict_submission(
        checkpoints, source, destination, size=size, overwrite=overwrite, device=device, precision=precision
    )
    console = output()
    console.print(f"{made.count:,} predictions of classes 0..6, read back from the zip and compared", highlight=False)
    console.print(
        f"written: {made.path} (made of {made.predictions}, which may be deleted)", highlight=False, soft_wrap=True
    )
