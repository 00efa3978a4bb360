"""Exit code of the program `sweeps` that says how a sweep ended; 0 is done, and `segda.cli_errors` has those of errors."""

STOPPED = 75  # by SIGINT or SIGTERM; what schedulers of clusters read as "try again later" (EX_TEMPFAIL)
