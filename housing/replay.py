"""Predict logged requests again with another version, and compare it with the answers and the true values.

python -m housing.replay version=7 since=2026-11-24
"""

from omegaconf import DictConfig

from housing.command_line.command import command
from housing.command_line.output import Result


@command("replay")
def main(cfg: DictConfig) -> Result:
    """Replay the prediction log, print the summary, and write the page."""
    # pylint: disable=import-outside-toplevel  # --help must not wait for libraries
    from housing.command_line import console
    from housing.traffic import printing
    from housing.traffic.replay import replay
    from housing.traffic.result import ReplayDocument

    result, page = replay(cfg)
    printing.show_result(result)
    console.show_file(page)
    return Result(ReplayDocument(page, result.to_dict()))


if __name__ == "__main__":
    main()
