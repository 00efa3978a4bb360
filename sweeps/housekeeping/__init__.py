"""Sweeps as a whole: deleted, renamed, freed of what nothing needs. Each holds the sweep's lease, so that no driver is at work."""
