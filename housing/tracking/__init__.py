"""MLflow, which only this package of `housing` imports: runs, registry and artifacts."""
