"""The worker class: the project's own, or gunicorn's gthread if this gunicorn version is untested."""

import sys

OWN = "server.transport.gunicorn_worker.Worker"
PLAIN = "gthread"  # gunicorn's own threaded worker
# The own worker uses undocumented parts of gunicorn. Add a version once the tests pass with it.
TESTED = ((26, 2),)

UNTESTED = """
WARNING: gunicorn {version} is not tested with {own}. Falling back to the slower {plain} worker.
Install a tested version, {tested}, with ./scripts/setup.
"""


def choose(version: tuple[int, ...]) -> str:
    """Return the name of the worker class for a gunicorn version. Print a warning if the version is untested."""
    if version[:2] in TESTED:
        return OWN
    tested = " or ".join(f"{major}.{minor}" for major, minor in TESTED)
    warning = UNTESTED.format(version=".".join(map(str, version)), own=OWN, plain=PLAIN, tested=tested)
    print(warning, file=sys.stderr, flush=True)
    return PLAIN
