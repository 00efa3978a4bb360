"""Which configurations are proposed: Optuna's samplers over a study that is rebuilt from the ledger."""
