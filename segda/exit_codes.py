"""Exit codes of the program `segda`, and what its help says of them."""

DONE = 0
BUG = 1
USER_ERROR = 2
INTERRUPTED = 130  # 128 + SIGINT, what shells expect

MEANINGS = {
    DONE: "done",
    BUG: "a bug, with a traceback",
    USER_ERROR: "something to correct, in one line",
    INTERRUPTED: "ended by Ctrl-C; the same command goes on",
}
