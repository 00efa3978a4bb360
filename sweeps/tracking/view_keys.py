"""What of MLflow's page is no public interface: the names of tags, and of what a browser keeps.

The page's server reads them and nothing else of sweeps, since it also runs where no network is trained.
"""

TAG = "mlflow.sharedViewState."  # of an experiment: a saved view, by its key
TABLE = "trials-"  # what the keys of views with all trials of a sweep begin with
NOTE = "mlflow.note.content"
COLOR = "mlflow.runColor"
WORKFLOW, ASSISTANT = "mlflow.workflowType", "mlflow.assistant.fab.autoOpenedOnFirstLoad"  # version 1 of either
PAGE = ("MLflowLocalStorage", "ExperimentPage", "ReactComponentState")  # parts of the key of an experiment's page
PAGE_VERSION = "1.1"
