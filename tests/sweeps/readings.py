"""Reads a configuration file as the commands do, within a limit of time."""

import contextlib
import io
import signal
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from segda.cli_errors import run_cli
from segda.datasets import DATASETS
from segda.errors import ConfigError
from segda.guests import make_importable
from segda.loading import load_config
from sweeps.checks.changes import with_sampler
from sweeps.checks.makers import load_spec
from sweeps.cli import sweeps
from sweeps.planning.coverage import cases
from sweeps.search.proposer import Search

LONGEST = 2000  # characters of a refusal
_OWN = Path(__file__).resolve().parents[2] / "examples" / "own"


class TooLongError(BaseException):
    """A file took longer to read than it may."""


def read_sweep(path: Path, *, seconds: float) -> str | None:
    """Check a sweep file on the command line, and do with one that is accepted what comes before the first training.

    Returns:
        The line that refuses it, or None.

    Raises:
        TooLongError: there is no end to it.
        Exception: whatever it brings else: a bug.
    """
    with _limited(seconds), pytest.MonkeyPatch.context() as patch:
        for name in DATASETS:
            patch.setenv(f"SEGDA_{name.upper()}_ROOT", str(_OWN))
        patch.setenv("SEGDA_TWO_TOWNS_TWOTOWNS_ROOT", str(_OWN))
        make_importable([_OWN])
        refused = _refusal("check", str(path))
        if refused is None or "data set" in refused:
            _plan(path)
    return refused


def read_training(path: Path, *, seconds: float) -> str | None:
    """Read the configuration of a training; see `read_sweep`."""
    with _limited(seconds):
        make_importable([_OWN])
        try:
            load_config(path).fingerprint()
        except ConfigError as error:
            return _one_line(str(error))
    return None


def _plan(path: Path) -> None:
    try:
        spec = with_sampler(load_spec(path))
    except ConfigError as error:
        _one_line(str(error))
        return
    spec.fingerprint()
    for branch in spec.space.branches():
        spec.train_config(spec.space.first(branch), seed=spec.seeds[-1])
    assert cases(spec)
    search = Search(spec, spec.space, [])
    for number in range(3):
        spec.train_config(search.ask(number), seed=spec.first_seed)
    list(islice(spec.build_scheduler().rung_steps, 100))


def _refusal(*words: str) -> str | None:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run_cli(sweeps, words)
        except SystemExit as ended:
            code = ended.code
    if code == 0:
        return None
    assert code == 2, f"exit code {code}: {err.getvalue()}"
    return _one_line(err.getvalue().removesuffix("\n"))


def _one_line(text: str) -> str:
    assert "\n" not in text, text
    assert len(text) <= LONGEST, f"{len(text)} characters: {text[:200]}"
    return text


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    def end(*_: object) -> None:
        raise TooLongError

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
