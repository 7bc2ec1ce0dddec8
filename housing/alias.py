"""Print the version at an alias.

python -m housing.alias alias=production
"""

from omegaconf import DictConfig

from housing.core.command import command
from housing.tracking import store


@command("alias")
def main(cfg: DictConfig) -> None:
    """Print only the number of the version, for shell scripts, or an empty line if the alias is unset."""
    print(store.connect(cfg.mlflow).registry.version_at(cfg.registered_model, cfg.alias) or "")


if __name__ == "__main__":
    main()
