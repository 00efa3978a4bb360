"""Exit codes of the program `sweeps`, and what its help says of them."""

from segda import exit_codes

DONE = exit_codes.DONE  # or ended by `sweeps stop`
DIFFERS = 1  # of `sweeps audit` and `sweeps reproduce`; of all others a bug, which is Python's
# The budget is used, and at least half of the trained trials failed or none can be picked; or no artefact keeps the budgets.
FELL_SHORT = 3
# By SIGINT, SIGTERM or SIGHUP, or since the machines are in the way: data, a disk, storage, nodes, the ledger's database or Ray
# itself are away. What schedulers of clusters read as "try again later" (EX_TEMPFAIL).
STOPPED = 75

MEANINGS = {
    DONE: "done, or ended by `sweeps stop`",
    DIFFERS: "an audit or a reproduction found a difference (else a bug, with a traceback)",
    exit_codes.USER_ERROR: exit_codes.MEANINGS[exit_codes.USER_ERROR],
    FELL_SHORT: "done, but at least half of the trained trials failed, none can be picked, or no artefact keeps a budget",
    STOPPED: "a running sweep was ended by SIGTERM, SIGHUP, Ctrl-C, an outage (data, disk, storage, nodes) or the end of Ray, "
    "and can be resumed",
    exit_codes.INTERRUPTED: "ended at once by Ctrl-C, in a sweep a second one",
}
