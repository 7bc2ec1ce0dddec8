"""The loop of a process that works in small steps beside a server."""

import logging
import time
from collections.abc import Callable
from typing import NoReturn

MIN_PAUSE_SECONDS = 0.5  # between two steps


def repeat_forever(
    step: Callable[[], None], rest_ratio: float, errors: tuple[type[Exception], ...], failure: str, log: logging.Logger
) -> NoReturn:
    """Take a step, pause, and begin again. A step that failed is logged once and tried again.

    Parameters
    ----------
    rest_ratio
        A pause is at least so many times the duration of its step.
    errors
        What a later step may not meet any more, such as a full disk.
    failure
        What does not work while steps fail; the error is added.
    """
    last_message = ""
    while True:
        started, message = time.monotonic(), ""
        try:
            step()
        except errors as error:
            message = f"{failure}: {error}"
        if message and message != last_message:
            log.error("%s", message)
        last_message = message
        time.sleep(max(MIN_PAUSE_SECONDS, rest_ratio * (time.monotonic() - started)))
