"""Which MLflow experiment a sweep's runs are in: the one that they are in already, whatever it is called by now.

People rename experiments on MLflow's page, and the name may then be given to another one. The ledger knows the sweep's run, and
MLflow knows where that is.
"""

import logging

from mlflow import MlflowClient
from mlflow.entities import Experiment, Run, ViewType
from mlflow.exceptions import MlflowException

from sweeps.ledger.records import SweepRecord

log = logging.getLogger(__name__)

CONFIGURED = (
    "sweep.experiment"  # on the sweep's run: the experiment that the sweep file asked for when the run was made
)
_EXPERIMENTS_PER_PAGE = 200


def sweep_id(record: SweepRecord) -> str:
    """Return what tags a sweep's runs: the name alone could be another sweep's in another ledger that uses the same server.

    A sweep that was renamed keeps it, so its runs stay its own.
    """
    first = (*record.info.former_names, record.name)[0]
    return f"{first}@{record.created:.6f}"


def sweep_condition(record: SweepRecord, *, role: str) -> str:
    """Return the search condition for a sweep's runs.

    Args:
        record: the sweep.
        role: `sweep` for its own run, `trial` for those of its trials.
    """
    return f"tags.`sweep.id` = '{sweep_id(record)}' and tags.`sweep.role` = '{role}'"


def find_experiment(client: MlflowClient, record: SweepRecord, *, name: str) -> Experiment | None:
    """Return the experiment of a sweep, which may be a deleted one; None if there is none yet.

    Args:
        client: MLflow.
        record: the sweep.
        name: what the sweep file calls the experiment. It decides where the sweep has no run yet, and where the file names another
            experiment than it did when the run was made.

    Raises:
        MlflowException: a call failed.
    """
    run = _known_run(client, record)
    if run is not None and run.data.tags.get(CONFIGURED, name) in _names(record, name):
        found: Experiment = client.get_experiment(run.info.experiment_id)
        return found
    return client.get_experiment_by_name(name)


def open_experiment(client: MlflowClient, record: SweepRecord, *, name: str, artifacts: str | None) -> Experiment:
    """Return the experiment of a sweep, which is made or restored if need be.

    Args:
        client: MLflow.
        record: the sweep.
        name: see `find_experiment`.
        artifacts: where a new experiment keeps files; unset: where the server does.

    Raises:
        MlflowException: a call failed.
    """
    found = find_experiment(client, record, name=name)
    if found is None:
        try:
            return client.get_experiment(client.create_experiment(name, artifact_location=artifacts))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        found = client.get_experiment_by_name(name)  # another sweep's driver was faster
        assert found is not None
    if found.lifecycle_stage == "deleted":
        # MLflow gives the name to no other experiment as long as it can be restored.
        client.restore_experiment(found.experiment_id)
        log.warning("MLflow experiment %r had been deleted and was restored", found.name)
    if found.name != name and found.name in _names(record, name) and client.get_experiment_by_name(name) is None:
        client.rename_experiment(found.experiment_id, name)
        return client.get_experiment(found.experiment_id)
    return found


def _names(record: SweepRecord, name: str) -> set[str]:
    """Return what an experiment may have been asked for as; one that has the sweep's own name is renamed with it."""
    return {name, *record.info.former_names} if name == record.name else {name}


def _known_run(client: MlflowClient, record: SweepRecord) -> Run | None:
    """Return the sweep's run, deleted or not, wherever it is; None if this MLflow has none."""
    if record.parent_run_id is None:
        return None
    try:
        run: Run = client.get_run(record.parent_run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    else:
        return run if run.data.tags.get("sweep.id") == sweep_id(record) else None
    # It was removed for good, or the ledger is older than the run: trials may be where it was.
    token: str | None = None
    while True:
        page = client.search_experiments(ViewType.ALL, max_results=_EXPERIMENTS_PER_PAGE, page_token=token)
        condition = f"tags.`sweep.id` = '{sweep_id(record)}'"
        places = [experiment.experiment_id for experiment in page]
        for found in client.search_runs(places, condition, ViewType.ALL, max_results=1):
            return found
        token = page.token
        if not token:
            return None
