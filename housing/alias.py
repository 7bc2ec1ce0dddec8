"""Entry: which version is at an alias.

python -m housing.alias alias=production
"""

from omegaconf import DictConfig

from housing.core.command import command
from housing.tracking import store


@command("alias")
def main(cfg: DictConfig) -> None:
    """Print the number of the version alone, for a shell; nothing where there is none."""
    print(store.connect(cfg.mlflow).registry.version_at(cfg.registered_model, cfg.alias) or "")


if __name__ == "__main__":
    main()
