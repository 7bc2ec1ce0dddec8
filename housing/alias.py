"""Print the version at an alias.

python -m housing.alias alias=production
"""

from omegaconf import DictConfig

from housing.command_line.command import command
from housing.command_line.output import Result
from housing.core.printable import show
from housing.tracking.aliases import VersionAtAlias, require_declared_alias


@command("alias")
def main(cfg: DictConfig) -> Result:
    """Print only the number of the version, for shell scripts, or an empty line if the alias is unset."""
    # pylint: disable=import-outside-toplevel  # --help must not wait for libraries
    from housing.tracking import store

    require_declared_alias(cfg.alias, cfg.aliases)
    version = store.connect(cfg.mlflow).registry.version_at(cfg.registered_model, cfg.alias)
    show(version or "")
    return Result(VersionAtAlias(cfg.registered_model, cfg.alias, version))


if __name__ == "__main__":
    main()
