"""Which trials stop early: successive halving, median."""
