"""The only truth about a sweep: its tables, how to reach them, and the lease to drive it."""
