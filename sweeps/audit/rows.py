"""Whether the rows of the ledger are those that this program wrote, and keys follow from what they were made of."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from segda.config import canonical
from sweeps.file.spec import SweepSpec
from sweeps.findings import Check, check
from sweeps.ledger.database import Ledger
from sweeps.ledger.proofs import (
    PROFILE_ROW,
    SWEEP_ROW,
    TRIAL_ROW,
    Proof,
    current_chains,
    current_digests,
    read_proofs,
)
from sweeps.ledger.records import Device
from sweeps.planning.profiles import profile_key, reachable
from sweeps.trial import TrialRecord, trial_key

_NOT_OURS = "was changed by something else than this program"


def check_rows(spec: SweepSpec, *, ledger: Ledger, device: Device | None, is_driven: bool) -> Check:
    """Compare the ledger's rows of a sweep with their digests.

    Args:
        spec: the sweep.
        ledger: where it is.
        device: where its architectures were measured, if they were.
        is_driven: whether a driver works on it: then a row that seems wrong is looked at once more.
    """
    count, problems, unknown = _compare(spec.name, ledger)
    if problems and is_driven:
        count, problems, unknown = _compare(spec.name, ledger)
    if device is not None:
        architectures = reachable(spec)
        count += len(architectures)
        with ledger.reading() as connection:
            for architecture in architectures:
                key = profile_key(architecture, device)
                proof = read_proofs(connection, PROFILE_ROW, key).get(0)
                if proof is not None and current_digests(connection, PROFILE_ROW, key).get(0) != proof.digest:
                    problems.append(f"what the ledger says of the efficiency of {architecture} {_NOT_OURS}")
    note = f"{unknown} written by a version that kept no digests" if unknown else ""
    return Check("the ledger's rows are as they were written", count, tuple(problems), note)


def _compare(sweep: str, ledger: Ledger) -> tuple[int, list[str], int]:
    """Return how many rows were looked at, what is wrong with them, and how many have no digest."""
    with ledger.reading() as connection:
        whole = read_proofs(connection, SWEEP_ROW, sweep)
        proofs = read_proofs(connection, TRIAL_ROW, sweep)
        own = current_digests(connection, SWEEP_ROW, sweep)
        trials = current_digests(connection, TRIAL_ROW, sweep)
        chains = current_chains(connection, sweep)
    problems = [f"the row of sweep {sweep} {_NOT_OURS}"] if whole and whole[0].digest != own.get(0) else []
    unknown = 0
    for number in sorted(proofs.keys() | trials.keys()):
        proof = proofs.get(number)
        if number not in trials:
            problems.append(f"trial {number} was in the ledger and is gone")
        elif proof is not None:
            if proof.digest != trials[number]:
                problems.append(f"trial {number}: its row {_NOT_OURS}")
            if proof.points is not None and proof.points != chains.get(number, ""):
                problems.append(f"trial {number}: its reports were changed, removed or added to by something else")
        elif number > min(proofs, default=number):
            problems.append(f"trial {number} was added by something else than this program")
        else:
            unknown += 1
    return 1 + len(trials), problems, unknown


def check_keys(
    records: Sequence[TrialRecord], proofs: Mapping[int, Proof], results: Mapping[int, Mapping[str, Any]]
) -> Check:
    """Compute the trials' keys anew, of what they were made of.

    Args:
        records: trials of a sweep.
        proofs: data and code of each.
        results: content of their files `result.json`, which say what data they read.
    """
    noted = {number: proof for number, proof in proofs.items() if proof.data is not None and proof.code is not None}
    known = [record for record in records if record.number in noted]

    def problems() -> Iterator[str]:
        for record in known:
            proof, config = noted[record.number], canonical(record.config)
            if trial_key(config, str(proof.data), str(proof.code)) != record.key:
                made_of = f"its configuration, data {proof.data} and code {proof.code}"
                yield f"trial {record.number}: its key is not that of {made_of}"
            read = results.get(record.number, {}).get("data_fingerprint", proof.data)
            if read != proof.data:
                yield (
                    f"trial {record.number} read data with fingerprint {read}, its key says {proof.data}: files of the data sets "
                    "were added, removed or changed after the sweep had begun"
                )
        by_key: dict[str, dict[str, int]] = {}
        for record in records:
            text = json.dumps(canonical(record.config), sort_keys=True)
            by_key.setdefault(record.key, {})[text] = record.number
        for configs in by_key.values():
            if len(configs) > 1:
                listed = ", ".join(map(str, sorted(configs.values())))
                yield f"trials {listed} have the same key for different configurations"

    unknown = len(records) - len(known)
    note = f"{unknown} of a version that did not note data and code" if unknown else ""
    return check("keys follow from configuration, data and code", len(known), problems(), note=note)
