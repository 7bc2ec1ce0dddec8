"""Print the version at an alias.

python -m housing.alias alias=production
"""

from omegaconf import DictConfig

from housing.core.aliases import require_declared_alias
from housing.core.command import command
from housing.tracking import store


@command("alias")
def main(cfg: DictConfig) -> None:
    """Print only the number of the version, for shell scripts, or an empty line if the alias is unset."""
    require_declared_alias(cfg.alias, cfg.aliases)
    print(store.connect(cfg.mlflow).registry.version_at(cfg.registered_model, cfg.alias) or "")


if __name__ == "__main__":
    main()
