"""Run the command line with `python -m segda`."""

from segda.cli import main

main()
