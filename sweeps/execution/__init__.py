"""Running a sweep: decisions over the ledger, Ray as the executor, workers, and what is done about failures."""
