"""What the commands do, for Python and for the command line alike."""
