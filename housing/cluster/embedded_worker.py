"""Set-up of a worker of an embedded cluster. Dask imports this module in each, also in those that its supervisors start again."""

import signal


def dask_setup(_worker: object) -> None:
    """Ignore Ctrl-C, which a terminal sends to all processes: the command ends its workers itself, after their jobs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
