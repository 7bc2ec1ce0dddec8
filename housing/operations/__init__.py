"""Commands that run over time: retraining and health checks."""
