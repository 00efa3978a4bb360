"""A sweep whose trials were trained by hand: rows, reports, digests and files as an audit wants them, without a training."""

import json
import os
import signal

import sqlalchemy as sa
from test_audit import DATA, write_files

from sweeps.execution.digests import digests_of
from sweeps.execution.remote import keep
from sweeps.ledger.tables import EVENT, POINT, PROOF, SWEEP, TRIAL
from sweeps.trial import TrialKind, TrialRecord, TrialState, code_of, trial_key


def train(ledger, store, spec, number, value=0.5, *, state=TrialState.COMPLETE, steps=6, lr=None, **changes):
    """Add a trial that has come to some state, with its files here and at the sweep's storage address."""
    params = {"optimizer.lr": lr or 0.01 * (number + 1)}
    seed = changes.get("seed", 0)
    config = spec.train_config(params, seed=seed)
    code = code_of(config, train="segda.training:train")
    fields = {
        "sweep": spec.name,
        "number": number,
        "key": trial_key(config.canonical(), DATA, code),
        "kind": TrialKind.SEARCH,
        "params": params,
        "config": config.model_dump(mode="json"),
        "seed": seed,
        "created": 1.0,
    }
    record = TrialRecord(**fields | changes)
    ledger.add_trial(record, data=DATA, code=code)
    ledger.start_attempt(spec.name, number, worker="host:1")

    def metrics(step):
        figures = {
            "source/val/miou": value * step / 6,
            "target/largest_class_share": 0.4,
            "target/missing_classes": 0.0,
        }
        return figures | {"oracle/target/miou": value / 2}

    folder = store.trial(record)
    write_files(folder, range(1, steps + 1), metrics, weight=number)
    for step in range(1, steps + 1):
        ledger.add_point(spec.name, number, attempt=1, step=step, timestamp=1.0 + step, metrics=metrics(step))
    if state is TrialState.COMPLETE:
        result = {"classes": [], "splits": {}, "data_fingerprint": DATA}
        (folder / "result.json").write_text(json.dumps(result))
        ledger.put_files(spec.name, number, digests_of(folder), attempt=1)
    finished = {"finished": 4e9} if state.is_finished else {}
    if state is not TrialState.RUNNING:
        ledger.update_trial(spec.name, number, state=state, **finished)
    trained = ledger.trial(spec.name, number)
    if spec.storage is not None:
        keep(trained, store=store, storage=spec.storage)
    return trained


def rows(ledger, name):
    """Return how many rows of each table are a sweep's."""
    conditions = {
        "sweep": SWEEP.c.name == name,
        "trial": TRIAL.c.sweep == name,
        "point": POINT.c.sweep == name,
        "event": EVENT.c.sweep == name,
        "proof": sa.and_(PROOF.c.name == name, PROOF.c.kind != "profile"),
    }
    with ledger.reading() as connection:
        return {
            table: connection.execute(sa.select(sa.func.count()).where(condition)).scalar_one()
            for table, condition in conditions.items()
        }


def kill_during(owner, name, call, *, before=False):
    """Call something in a process that is killed right after, or before, it has called one function of a module or class."""
    process = os.fork()
    if process == 0:
        try:
            real = getattr(owner, name)

            def last(*arguments, **options):
                if not before:
                    real(*arguments, **options)
                os.kill(os.getpid(), signal.SIGKILL)

            setattr(owner, name, last)
            call()
        finally:
            os._exit(1)
    assert os.WIFSIGNALED(os.waitpid(process, 0)[1])
