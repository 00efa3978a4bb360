"""Exit codes of the program `sweeps` that say how a sweep ended; 0 is done, and `segda.cli_errors` has those of errors."""

STOPPED = 75  # by SIGTERM or `sweeps stop`; what schedulers of clusters read as "try again later" (EX_TEMPFAIL)
INTERRUPTED = 130  # by Ctrl-C: 128 + SIGINT, what shells expect
