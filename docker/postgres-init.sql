-- Beside the ledger's database, which POSTGRES_DB names, MLflow has one of its own.
CREATE DATABASE mlflow;
