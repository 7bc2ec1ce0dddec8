"""The health check of an image: whether the server answers on its own port.

python -m server.alive
"""

import sys
from http.client import HTTPConnection

from server.settings import Settings


def main() -> int:
    """Ask /healthz; give 0 where a worker answers with 200. Raises OSError where none answers."""
    connection = HTTPConnection("127.0.0.1", Settings.from_environment().port, timeout=4)
    connection.request("GET", "/healthz")
    return int(connection.getresponse().status != 200)


if __name__ == "__main__":
    sys.exit(main())
