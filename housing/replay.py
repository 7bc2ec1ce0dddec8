"""Predict logged requests again with another version, and compare it with the answers and the true values.

python -m housing.replay version=7 since=2026-11-24
"""

from omegaconf import DictConfig

from housing.command_line.command import command


@command("replay")
def main(cfg: DictConfig) -> None:
    """Replay the prediction log, print the summary, and write the page."""
    # pylint: disable=import-outside-toplevel  # --help must not wait for libraries
    from housing.command_line import console
    from housing.traffic import printing
    from housing.traffic.replay import replay

    result, page = replay(cfg)
    printing.show_result(result)
    console.show_file(page)


if __name__ == "__main__":
    main()
