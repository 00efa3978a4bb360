"""Run the command line with `python -m sweeps`."""

from sweeps.main import main

main()
