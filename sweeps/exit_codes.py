"""Exit codes of the program `sweeps` that say how a sweep ended; `segda.cli_errors` has those of errors."""

DONE = 0  # or ended by `sweeps stop`
# The budget is used, and at least half of the trained trials failed or none can be picked; or no artefact keeps the budgets.
FELL_SHORT = 3
# By SIGINT, SIGTERM or SIGHUP, or since the machines are in the way: data, a disk, storage, nodes, the ledger's database or Ray
# itself are away. What schedulers of clusters read as "try again later" (EX_TEMPFAIL).
STOPPED = 75
