"""Whether the files in the trials' folders say what the ledger says."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from segda.config import TrainConfig
from segda.environment import code_fingerprint
from sweeps.audit.findings import Check, check, same
from sweeps.execution.system_metrics import PREFIX
from sweeps.ledger.records import Point
from sweeps.store import Store
from sweeps.trial import TrialRecord, TrialState, trial_key

Reports = Sequence[tuple[int, Mapping[str, float]]]  # (step, metrics), oldest first
History = Callable[[Path], Reports]


def segda_history(checkpoint: Path) -> Reports:
    """Return the reports that are kept in a checkpoint of `segda.train`.

    Args:
        checkpoint: the file; tensors in it are not read.

    Raises:
        Exception: whatever `torch.load` raises for a damaged file.
    """
    state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    history = _reports(json.loads(state["history"]))
    if history and history[-1][0] != state["step"]:
        raise ValueError(f"it is of step {state['step']}, its last report is of step {history[-1][0]}")
    return history


def check_keys(records: Sequence[TrialRecord], store: Store, *, train: str) -> Check:
    """Compute the trials' keys anew, where what goes into them is known.

    Args:
        records: trials of a sweep.
        store: has their results, which say what data they read.
        train: training function as `module:name`.
    """
    fingerprints: dict[str, str] = {}
    for record in records:
        result = _read_json(store.trial(record) / "result.json")
        if "data_fingerprint" in result:
            fingerprints[json.dumps(record.config["data"], sort_keys=True)] = str(result["data_fingerprint"])
    code = f"{train} {code_fingerprint()}"
    matching, differing = 0, []
    for record in records:
        data = fingerprints.get(json.dumps(record.config["data"], sort_keys=True))
        if data is not None:
            key = trial_key(TrainConfig.model_validate(record.config).canonical(), data, code)
            matching += key == record.key
            differing += [record.number] if key != record.key else []
    unknown = len(records) - matching - len(differing)
    notes = [
        # A sweep may go on with newer code: its earlier trials keep their keys.
        f"{len(differing)} of other code than this: not computed anew" if differing else "",
        f"{unknown} whose data are not known yet" if unknown else "",
    ]
    by_key: dict[str, dict[str, int]] = {}
    for record in records:
        canonical = json.dumps(TrainConfig.model_validate(record.config).canonical(), sort_keys=True)
        by_key.setdefault(record.key, {})[canonical] = record.number
    problems = (
        f"trials {', '.join(map(str, sorted(configs.values())))} have the same key for different configurations"
        for configs in by_key.values()
        if len(configs) > 1
    )
    return check(
        "keys follow from configuration, data and code", matching, problems, note="; ".join(filter(None, notes))
    )


def check_folders(records: Sequence[TrialRecord], store: Store) -> Check:
    """Compare the trials' folders with the ledger: none of a foreign trial, none of an attempt that was never made."""

    def problems() -> Iterator[str]:
        known = {store.trial(record) for record in records}
        folder = store.sweep(records[0].sweep) / "trials" if records else None
        if folder is not None and folder.is_dir():
            for path in sorted(folder.iterdir()):
                if path.is_dir() and path not in known:
                    yield f"{path} belongs to no trial of the ledger"
        for record in records:
            fence = store.trial(record) / "attempt"
            if fence.is_file() and int(fence.read_text()) > record.attempt:
                made = fence.read_text().strip()
                yield f"trial {record.number}: a worker made attempt {made}, the ledger knows {record.attempt}"

    return check("each folder is that of a trial, and of an attempt that was handed out", len(records), problems())


def check_metric_files(
    records: Sequence[TrialRecord], points: Mapping[int, Sequence[Point]], store: Store, *, is_elsewhere: bool
) -> Check:
    """Compare `metrics.jsonl` in the trials' folders with the reports in the ledger.

    Args:
        records: trials of a sweep.
        points: trial -> its reports in the ledger.
        store: has the folders.
        is_elsewhere: whether files are kept at a storage address, so that they may be missing here.
    """

    def read(folder: Path) -> Reports:
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return _reports([json.loads(line) for line in lines])

    claim = "the trials' metrics.jsonl have the same reports"
    return _compare(claim, "metrics.jsonl", records, points, store, is_elsewhere=is_elsewhere, read=read)


def check_checkpoints(
    records: Sequence[TrialRecord],
    points: Mapping[int, Sequence[Point]],
    store: Store,
    *,
    is_elsewhere: bool,
    history: History,
) -> Check:
    """Compare the trials' checkpoints with the reports in the ledger: nothing was acknowledged that is not in one.

    Args:
        records: trials of a sweep.
        points: trial -> its reports in the ledger.
        store: has the folders.
        is_elsewhere: whether files are kept at a storage address, so that they may be missing here.
        history: reads the reports out of a checkpoint.
    """
    claim = "the trials' checkpoints have the same reports"

    def read(folder: Path) -> Reports:
        return history(folder / "checkpoint.pt")

    return _compare(claim, "checkpoint.pt", records, points, store, is_elsewhere=is_elsewhere, read=read)


def _compare(
    claim: str,
    file: str,
    records: Sequence[TrialRecord],
    points: Mapping[int, Sequence[Point]],
    store: Store,
    *,
    is_elsewhere: bool,
    read: Callable[[Path], Reports],
) -> Check:
    trained = [record for record in records if points[record.number]]
    absent = [record for record in trained if not (store.trial(record) / file).is_file()]
    if len(absent) == len(trained) or is_elsewhere:
        # Nobody wrote such files, or they are kept at the storage address: there is nothing to compare with.
        note = f"{len(absent)} have none here" if absent else ""
        trained = [record for record in trained if record not in absent]
    else:
        note = ""
    compared = 0
    found: list[str] = []
    for record in trained:
        try:
            reports = read(store.trial(record))
        # Whatever a damaged file makes its reader raise is what the audit has to tell.
        except Exception as error:
            found.append(f"trial {record.number}: {file} cannot be read ({type(error).__name__}: {error})")
            continue
        compared += len(reports)
        found += _differences(record, points[record.number], reports, file)
    return Check(claim, compared, tuple(found), note)


def _differences(record: TrialRecord, points: Sequence[Point], reports: Reports, file: str) -> Iterator[str]:
    theirs = dict(reports)
    if len(theirs) < len(reports):
        yield f"trial {record.number}: {file} has a step more than once"
    ahead = [step for step in theirs if step > record.step]
    # A worker writes its files before it reports, and one that was stopped may have reported once more.
    if ahead and record.state is TrialState.COMPLETE:
        yield f"trial {record.number}: {file} has step {ahead[0]}, which the ledger lacks"
    for point in points:
        if point.step not in theirs:
            yield f"trial {record.number}: the ledger has step {point.step}, which {file} lacks"
            continue
        mine = {name: value for name, value in point.metrics.items() if not name.startswith(PREFIX)}
        other = theirs[point.step]
        wrong = [name for name in mine.keys() | other.keys() if not _equal(mine.get(name), other.get(name))]
        if wrong:
            yield f"trial {record.number}, step {point.step}: {file} has other values of {', '.join(sorted(wrong)[:5])}"


def _equal(first: float | None, second: float | None) -> bool:
    return first is not None and second is not None and same(first, second)


def _reports(history: Sequence[Mapping[str, Any]]) -> Reports:
    return [(int(kept["step"]), kept["metrics"]) for kept in history]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content
