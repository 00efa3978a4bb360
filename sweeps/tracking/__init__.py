"""MLflow as a projection of the ledger; the only folder that imports mlflow.

One MLflow run per trial under one run per sweep. Everything is read from the ledger and the trials' folders, so MLflow may be
down, slow, late or deleted: `Tracker` brings it up to date, and sending something twice changes nothing (points carry the time at
which the worker measured them). Workers never talk to MLflow.

- `follower`: follows the ledger in a thread of its own, and goes on after an outage
- `projection`: sends what MLflow has not
- `runs`: which run belongs to which trial; what is missing is made, what is double is removed
- `experiment`: where the runs are, whatever people call it
- `limits`: what MLflow takes of names and texts, and what becomes of what it refuses
- `database`: MLflow's SQLite file, whole or absent
- `trial_run`, `sweep_run`: what the runs hold
- `aliases`, `saved_views`: short names, and pages of MLflow that show a sweep by them at once
- `app`, `view_keys`: MLflow's server with a first page that opens them (`mlflow ui --app-name sweeps`)
- `registry`: the picked network as a registered model
- `comparison`: whether MLflow holds what the ledger says
"""

import os
from typing import TYPE_CHECKING

from segda.lazy import exports

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# The follower's own loop tries again; inside a call, MLflow's default of many slow retries would only hide what is wrong.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
# Nothing between the lines of a progress display.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from sweeps.tracking.comparison import compare
    from sweeps.tracking.follower import Tracker
    from sweeps.tracking.server import TrackingError, check_server, default_uri

__all__ = ["MlflowClient", "Tracker", "TrackingError", "check_server", "compare", "default_uri"]

# MLflow's server imports `app`, where nothing that trains need be installed.
__getattr__, __dir__ = exports(
    __name__,
    {
        "mlflow": ("MlflowClient",),
        "sweeps.tracking.comparison": ("compare",),
        "sweeps.tracking.follower": ("Tracker",),
        "sweeps.tracking.server": ("TrackingError", "check_server", "default_uri"),
    },
)
