"""Sends to MLflow what the ledger and the trials' folders have and MLflow has not."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric

from sweeps.execution.remote import fetch
from sweeps.file.spec import SweepSpec
from sweeps.ledger.database import Ledger
from sweeps.metrics import has_doubts
from sweeps.reports.view import SweepView, load_view
from sweeps.store import Store
from sweeps.tracking.aliases import alias_metrics, compared_metrics
from sweeps.tracking.experiment import sweep_id
from sweeps.tracking.registry import register
from sweeps.tracking.runs import CURSOR, DONE, SweepRuns, TrialRun, create_trial_run, cursor_text
from sweeps.tracking.saved_views import put_views
from sweeps.tracking.server import log_metrics, log_params, put_tags
from sweeps.tracking.sweep_run import send_summary
from sweeps.tracking.trial_run import (
    PICKED_COLOR,
    STAR,
    STATE_TAGS,
    metrics_of,
    params_of,
    profile_metrics,
    put_status,
    run_status,
    send_files,
    state_tags,
)
from sweeps.tracking.view_keys import COLOR
from sweeps.trial import TrialRecord

_POINTS_PER_PASS = 500


class Projection:
    """One sweep and what MLflow is known to have of it; good until a call fails."""

    def __init__(self, client: MlflowClient, runs: SweepRuns, *, ledger: Ledger, spec: SweepSpec, store: Store) -> None:
        """Send nothing yet.

        Args:
            client: MLflow.
            runs: what it has.
            ledger: what is projected.
            spec: the sweep.
            store: where the trials' files are.
        """
        self._client = client
        self._runs = runs
        self._ledger = ledger
        self._spec = spec
        self._store = store
        self._compared = compared_metrics(spec)
        self._summarized = 0  # trials that had ended when the sweep's run was updated last

    def forget(self) -> None:
        """Take nothing that MLflow has for granted: send everything again."""
        self._runs.cursor = 0
        for run in self._runs.trials.values():
            run.has_params = False
            run.tags.pop(DONE, None)

    def send(self, *, final: bool, with_summary: bool) -> None:
        """Send everything that the ledger has and MLflow has not.

        Args:
            final: see `Tracker.sync`.
            with_summary: whether to update what the sweep's run shows, if another trial has ended since the last time; at the end
                it always is.

        Raises:
            MlflowException: a call failed; what was sent before stays.
        """
        records = {record.number: record for record in self._ledger.trials(self._spec.name)}
        if not final:
            self._put_parent_status("RUNNING")
        for record in records.values():
            self._run_of(record)
        self._send_points(records)
        for record in records.values():
            run = self._runs.trials.get(record.number)
            if run is not None:
                with self._skipping(f"what became of trial {record.number}", run.id):
                    self._send_state(run, record, is_driven=not final)
        finished = sum(record.state.is_finished for record in records.values())
        if final:
            is_done = finished == len(records)
            # First of all: whatever goes wrong with the rest, no run stays RUNNING.
            self._put_parent_status("FINISHED" if is_done else "SCHEDULED")
            self._send_picked(self._send_summary())
        elif with_summary and finished > self._summarized:
            self._summarized = finished
            self._send_summary()

    def _skipping(self, what: str, run_id: str) -> AbstractContextManager[None]:
        return self._runs.refusals.skipping(self._client, what, run_id=run_id)

    def _run_of(self, record: TrialRecord) -> TrialRun | None:
        """Return a trial's run, which is made if need be; None if MLflow refuses it."""
        if record.number not in self._runs.trials:
            with self._skipping(f"a run of trial {record.number}", self._runs.parent):
                create_trial_run(self._client, self._runs, record, ledger=self._ledger)
        run = self._runs.trials.get(record.number)
        if run is not None and not run.has_params:
            log_params(self._client, run.id, params_of(record), self._runs.refusals)
            run.has_params = True
        return run

    def _send_points(self, records: Mapping[int, TrialRecord]) -> None:
        headline = self._spec.objectives[0].metric
        while points := self._ledger.points_after(self._spec.name, self._runs.cursor, limit=_POINTS_PER_PASS):
            by_trial: dict[int, list[Metric]] = defaultdict(list)
            for point in points:
                by_trial[point.number] += metrics_of(point, headline=headline)
            for number, metrics in by_trial.items():
                # A trial's row may have come after the trials were read.
                record = records.get(number) or self._ledger.trial(self._spec.name, number)
                run = self._run_of(record)
                if run is not None:
                    log_metrics(self._client, run.id, metrics, self._runs.refusals)
                    self._send_profile(run, record)
            self._runs.cursor = points[-1].id
            self._client.set_tag(self._runs.parent, CURSOR, cursor_text(points[-1]))

    def _send_profile(self, run: TrialRun, record: TrialRecord) -> None:
        """Send the efficiency of a trial's architecture, behind its first metrics."""
        if not run.has_profile:
            figures = [*profile_metrics(record), *alias_metrics(record, self._compared)]
            log_metrics(self._client, run.id, figures, self._runs.refusals)
            run.has_profile = not has_doubts(record.profile)

    def _send_state(self, run: TrialRun, record: TrialRecord, *, is_driven: bool) -> None:
        status = run_status(record.state, is_driven=is_driven)
        if run.status == status and run.tags.get(DONE) == _final(record):
            return
        if record.state.is_finished:
            self._send_profile(run, record)
            log_metrics(self._client, run.id, alias_metrics(record, self._compared), self._runs.refusals)
            folder = self._folder(record)
            refusals = self._runs.refusals
            run.files = send_files(self._client, run.id, record, folder=folder, known=run.files, refusals=refusals)
        self._put_state_tags(run, record)
        if run.status != status:
            put_status(self._client, run.id, record, status=status)
            run.status = status
        if record.state.is_finished:
            # Last: a run without this tag is sent again by the next driver.
            self._client.set_tag(run.id, DONE, _final(record))
            run.tags[DONE] = _final(record)

    def _put_state_tags(self, run: TrialRun, record: TrialRecord) -> None:
        is_picked = record.number == self._runs.picked
        wanted = state_tags(record, processes=self._spec.resources.processes, is_picked=is_picked)
        known = {name: value for name, value in run.tags.items() if name in STATE_TAGS}
        if wanted != known:
            put_tags(self._client, run.id, wanted, known, self._runs.refusals)
            run.tags = {name: value for name, value in run.tags.items() if name not in known} | wanted

    def _folder(self, record: TrialRecord, *, with_checkpoint: bool = False) -> Path:
        """Return the folder with a trial's files, which are first brought here if the sweep keeps them elsewhere."""
        if self._spec.storage is not None:
            fetch(record, store=self._store, storage=self._spec.storage, with_checkpoint=with_checkpoint)
        return self._store.trial(record)

    def _put_parent_status(self, status: str) -> None:
        if self._runs.parent_status != status:
            if status == "FINISHED":
                self._client.set_terminated(self._runs.parent, status)
            else:
                self._client.update_run(self._runs.parent, status=status)
            self._runs.parent_status = status

    def _send_summary(self) -> SweepView:
        view = load_view(self._ledger, self._store, self._spec.name)
        reports = [self._store.report(self._spec.name, suffix=suffix) for suffix in (".html", ".md")]
        with self._skipping("what the sweep's run shows", self._runs.parent):
            send_summary(self._client, self._runs, view, reports=reports)
            self._move_star(view)
        self.show(view.trials)
        return view

    def show(self, trials: Sequence[TrialRecord]) -> None:
        """Let MLflow have the sweep's saved views, and the links to them.

        Args:
            trials: what came of the sweep so far.

        Raises:
            MlflowException: a call failed.
        """
        place = self._runs.experiment.experiment_id
        with self._skipping("views of the sweep", self._runs.parent):
            put_views(self._client, place, self._ledger.sweep(self._spec.name), self._spec, trials)

    def _move_star(self, view: SweepView) -> None:
        """Mark the run of the picked trial, and no other one; colors that people have given to runs stay."""
        for trial in view.trials:
            run = self._runs.trials.get(trial.number)
            is_picked = trial.number == self._runs.picked
            if run is None:
                continue
            if is_picked != run.tags.get("mlflow.runName", "").startswith(STAR):
                self._put_state_tags(run, trial)
            if is_picked and COLOR not in run.tags:
                self._client.set_tag(run.id, COLOR, PICKED_COLOR)
                run.tags[COLOR] = PICKED_COLOR
            elif not is_picked and run.tags.get(COLOR) == PICKED_COLOR:
                self._client.delete_tag(run.id, COLOR)
                del run.tags[COLOR]

    def _send_picked(self, view: SweepView) -> None:
        """Send the picked network: its checkpoint, and its model if the sweep asks for it."""
        picked = view.picked
        if picked is None:
            return
        run = self._runs.trials.get(picked.number)
        if run is None:
            return
        run_id = run.id
        checkpoint = self._folder(picked, with_checkpoint=True) / "checkpoint.pt"
        known = {item.path for item in self._client.list_artifacts(run_id)}
        if checkpoint.is_file() and checkpoint.name not in known:
            self._client.log_artifact(run_id, str(checkpoint))
        name = self._spec.tracking.register_as
        if name is None:
            return
        with self._skipping(f"the registered model {name!r}", run_id):
            register(
                self._client,
                name,
                record=picked,
                run_id=run_id,
                experiment=self._runs.experiment.experiment_id,
                checkpoint=checkpoint,
                tags={
                    "sweep.id": sweep_id(view.record),
                    "sweep.name": view.record.name,
                    "sweep.number": str(picked.number),
                    "sweep.selection": view.selection.criterion,
                },
            )


def _final(record: TrialRecord) -> str:
    """Return what a run of a finished trial is marked with when everything is there; its latency may be measured again."""
    return f"{record.state}{' with doubtful latency' if has_doubts(record.profile) else ''}"
