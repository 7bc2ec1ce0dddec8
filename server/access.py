"""API keys: create a key with rights.

    python -m server.access NAME predict,metrics

prints the key once, and the line that admits it: for the file in `serve.keys_file` or for the environment variable
HOUSING_KEYS. Store only the line; it holds a hash. Several keys can be valid at once.
"""

import hashlib
import secrets
import sys
from collections.abc import Sequence

from server.api.auth import KEYS_VARIABLE, RIGHTS, ApiKey


def main(arguments: Sequence[str]) -> None:
    """Create a key and print it with its line."""
    if len(arguments) != 2 or len(arguments[0].split()) != 1:
        sys.exit(f"usage: python -m server.access NAME RIGHTS\nRIGHTS: any of {','.join(RIGHTS)}, separated by commas")
    key = secrets.token_urlsafe(32)
    line = f"{arguments[0]} {arguments[1]} {hashlib.sha256(key.encode()).hexdigest()}"
    try:
        ApiKey.parse(line)
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(f"Key (shown only once):\n  {key}\nLine for serve.keys_file or {KEYS_VARIABLE}:\n  {line}")


if __name__ == "__main__":
    main(sys.argv[1:])
