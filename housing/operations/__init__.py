"""Operations over time: scheduled retraining and health checks of an installation."""
