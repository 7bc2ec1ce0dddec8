"""Judge the canary of an alias by true values, failures and latencies: it takes over, is taken back, or goes on.

python -m housing.canary alias=production
"""

import logging

from omegaconf import DictConfig

from housing.command_line.command import command
from housing.command_line.output import Result

REST_RATIO = 9  # with follow=true, the pause is at least so many times the duration of a look: at most a tenth of a core

log = logging.getLogger(__name__)


@command("canary")
def main(cfg: DictConfig) -> Result:
    """Look at the canary once, and print how it does and what was decided; with `follow`, look until interrupted."""
    # pylint: disable=import-outside-toplevel  # --help must not wait for libraries
    from housing.core.errors import HousingError
    from housing.core.step_loop import repeat_forever
    from housing.tracking import store as tracking
    from housing.traffic.canary_judge import CanaryJudge
    from housing.traffic.canary_printing import show_judgement
    from housing.traffic.canary_settings import CanarySettings

    judge = CanaryJudge(CanarySettings.from_config(cfg), tracking.connect(cfg.mlflow, create=False))

    def look() -> None:
        judgement = judge.look()
        if judgement.decision is not None:
            show_judgement(judgement, cfg.registered_model)

    if cfg.follow:
        repeat_forever(look, REST_RATIO, (HousingError, OSError), "the canary is not judged at present", log)
    judgement = judge.look()
    show_judgement(judgement, cfg.registered_model)
    return Result(judgement)


if __name__ == "__main__":
    main()
