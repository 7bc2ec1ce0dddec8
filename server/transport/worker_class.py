"""Which class of gunicorn worker serves: the project's own, or gunicorn's where gunicorn is of a version not tested with it."""

import sys

OWN = "server.transport.gunicorn_worker.Worker"
PLAIN = "gthread"  # gunicorn's own threaded worker, which OWN extends
# The own worker calls methods of the plain one that gunicorn does not document. Add a version once the tests have passed with it.
TESTED = ((26, 2),)

UNTESTED = """
WARNING: gunicorn {version} was not tested with {own}, so its {plain} worker serves: it answers the same, more slowly.
Install a tested version, {tested}, with ./scripts/setup.
"""


def choose(version: tuple[int, ...]) -> str:
    """Return the name of the worker class for a version of gunicorn; print a warning where it is not a tested one."""
    if version[:2] in TESTED:
        return OWN
    tested = " or ".join(f"{major}.{minor}" for major, minor in TESTED)
    told = UNTESTED.format(version=".".join(map(str, version)), own=OWN, plain=PLAIN, tested=tested)
    print(told, file=sys.stderr, flush=True)
    return PLAIN
