"""A sweep taken out of MLflow: its runs, its views, and the experiment if that holds nothing else.

MLflow marks what is deleted; `mlflow gc` removes it for good, with its files. Registered models stay.
"""

from mlflow import MlflowClient
from mlflow.entities import Experiment

from segda.masking import masked, reason
from sweeps.ledger.records import SweepRecord
from sweeps.store import Store
from sweeps.tracking.database import sqlite_path
from sweeps.tracking.experiment import find_experiment, sweep_condition
from sweeps.tracking.saved_views import view_keys
from sweeps.tracking.server import FAILURES, TrackingError, default_uri, look_at, search
from sweeps.tracking.view_keys import NOTE, TAG

_DEFAULT = "0"  # id of the experiment that MLflow makes for itself


class RunRemoval:
    """Takes one sweep out of MLflow."""

    def __init__(self, record: SweepRecord, *, store: Store) -> None:
        """Reach MLflow; nothing is removed yet.

        Args:
            record: the sweep.
            store: where MLflow's database is, unless the sweep names another place.

        Raises:
            TrackingError: it cannot be reached.
        """
        tracking = record.spec.get("tracking") or {}
        self._record = record
        self._name = str(tracking.get("experiment") or record.name)
        self._uri = str(tracking.get("uri") or default_uri(store))
        self._client: MlflowClient | None = None
        path = sqlite_path(self._uri)
        if path is not None and not path.exists():
            return  # a sweep that MLflow never heard of
        try:
            self._client = look_at(self._uri)
        except FAILURES as error:
            raise self._error(error) from error

    def remove(self) -> None:
        """Remove what there is; what an earlier call removed stays so.

        Raises:
            TrackingError: MLflow does not answer; the next call goes on.
        """
        if self._client is None:
            return
        try:
            experiment = find_experiment(self._client, self._record, name=self._name)
            if experiment is not None and experiment.lifecycle_stage == "active":
                self._remove_from(self._client, experiment)
        except FAILURES as error:
            raise self._error(error) from error

    def _remove_from(self, client: MlflowClient, experiment: Experiment) -> None:
        place = experiment.experiment_id
        for role in ("trial", "sweep"):
            for run in list(search(client, place, sweep_condition(self._record, role=role))):
                client.delete_run(run.info.run_id)
        table, groups = view_keys(self._record)
        for key in (f"{TAG}{table}", f"{TAG}{groups}"):
            if key in experiment.tags:
                client.delete_experiment_tag(place, key)
        lines = experiment.tags.get(NOTE, "").splitlines()
        others = [line for line in lines if f"={table})" not in line]
        if others != lines:
            client.set_experiment_tag(place, NOTE, "\n".join(others).strip())
        if place != _DEFAULT and not client.search_runs([place], max_results=1):
            client.delete_experiment(place)

    def _error(self, error: Exception) -> TrackingError:
        where = masked(self._uri)
        return TrackingError(
            f"MLflow at {where} cannot be asked to delete: {reason(error)}; start it, or leave its runs with it (without --mlflow)"
        )
