"""Entry: who decided what about the model, when and why.

python -m housing.history
"""

from omegaconf import DictConfig

from housing import console, decisions, tracking
from housing.config import command


@command("history")
def main(cfg: DictConfig) -> None:
    """Print the newest decisions, newest first."""
    store = tracking.connect(cfg.mlflow)
    console.show_history(decisions.past(store, cfg.decisions, cfg.alias, cfg.last), cfg.plain)


if __name__ == "__main__":
    main()
