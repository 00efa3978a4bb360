"""Which trial to pick, from how many seeds, and why."""
