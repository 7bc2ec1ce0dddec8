"""Remove old runs that no alias, decision or rollback needs, with their folders, and print disk use by kind.

python -m housing.clean keep_best=20 keep_days=90
"""

from omegaconf import DictConfig

from housing.command_line.command import command
from housing.command_line.output import Result


@command("clean")
def main(cfg: DictConfig) -> Result:
    """Print disk use, and what was removed or would be."""
    # pylint: disable=import-outside-toplevel  # --help must not wait for libraries
    from housing.command_line.next_command import next_command
    from housing.operations.cleaning import clean
    from housing.operations.printing import show_cleaning

    cleaned = clean(cfg)
    policy = (f"{key}={cfg[key]}" for key in ("keep_best", "keep_days", "metric"))
    show_cleaning(cleaned, next_command("clean", *policy, "dry_run=false"))
    return Result(cleaned)


if __name__ == "__main__":
    main()
