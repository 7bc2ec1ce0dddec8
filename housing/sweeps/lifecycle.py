"""Lifecycle of a sweep's process: signals, exit codes, and closing the sweep however it ends."""

# pylint: disable=import-outside-toplevel  # --help must not wait for the libraries that a sweep needs

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

from housing.command_line.output import Document
from housing.core.config import SWEEP_RUN

_received: list[int] = []  # signals that ask this process to end


def run_and_exit(main: Callable[[], Any]) -> NoReturn:
    """Run the train command and exit with its code, after its sweep is closed."""
    sys.exit(run_and_close(main))


def run_and_close(main: Callable[[], Any]) -> int:
    """Run the train command, close its sweep if it has one, and return the exit code."""
    signal.signal(signal.SIGTERM, _handle_sigterm)
    interrupted, code = True, 0
    try:
        main()
        interrupted = False
        if SWEEP_RUN in os.environ:
            _require_jobs()
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except SystemExit as error:
        interrupted = isinstance(error.code, int) and error.code > 128
        raise
    finally:
        if SWEEP_RUN in os.environ:
            closing_code = _close_sweep(interrupted)  # in any case, whatever the code is already
            code = code or closing_code
    return code


def exit_if_terminated() -> None:
    """Exit if a signal asked for it but its exception ended nothing, because it was raised in a finalizer."""
    if _received:
        sys.exit(128 + _received[0])


def _require_jobs() -> None:
    """Exit with an error if Hydra made no job from a sweep's command line, which it does not report itself."""
    from housing.sweeps.sweep import Sweep, has_outcomes

    if Sweep.current is not None and not has_outcomes(Sweep.current.folder):
        sys.exit("error: The sweep is empty: an override expands to no values (for example range(5,5)).")


def _close_sweep(interrupted: bool) -> int:
    """Close the sweep of this process and return its exit code."""
    from housing.sweeps.sweep import Sweep

    if Sweep.current is None:
        return 0
    is_complete = Sweep.current.close(interrupted)
    if Document.current is not None:
        Document.current.result = Sweep.current.result()
    return int(not is_complete)


def _handle_sigterm(number: int, _frame: FrameType | None) -> None:
    """Exit, so that an interrupted sweep closes its runs first."""
    _received.append(number)
    sys.exit(128 + number)
