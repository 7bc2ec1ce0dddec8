"""The health check of an image: whether the server answers on its own port.

python -m server.alive
"""

import urllib.request

from server.settings import Settings


def main() -> None:
    """Ask /healthz. Raises OSError where no worker answers with 200."""
    port = Settings.from_environment().port
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=4):
        pass


if __name__ == "__main__":
    main()
