"""Write a model card of a version or a run, as HTML and Markdown.

python -m housing.card version=7
"""

from omegaconf import DictConfig

from housing.command_line.command import command
from housing.command_line.output import Result


@command("card")
def main(cfg: DictConfig) -> Result:
    """Write both files and print their paths."""
    # pylint: disable=import-outside-toplevel  # --help must not wait for libraries
    from housing.command_line import console
    from housing.reports.card import write_card

    card = write_card(cfg)
    for path in (card.html, card.markdown):
        console.show_file(path)
    return Result(card)


if __name__ == "__main__":
    main()
