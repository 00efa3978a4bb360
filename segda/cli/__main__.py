"""Run the command line with `python -m segda.cli`."""

from segda.cli import main

main()
