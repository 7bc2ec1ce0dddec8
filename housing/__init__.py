"""Experiments on tables: Hydra composes them, MLflow tracks them, the best is promoted and served."""
