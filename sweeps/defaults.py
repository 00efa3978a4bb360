"""What counts where a command, a call or a file says nothing else."""

DEFAULT_STORE = "runs"  # folder of ledger, checkpoints and reports, in the working folder
LEDGER_VARIABLE = "SWEEPS_LEDGER"  # environment: address of the ledger
TRACKING_VARIABLE = "SWEEPS_TRACKING"  # environment: address of MLflow
