"""API keys: create a key with rights.

    python -m server.access NAME predict,metrics [MODEL@ALIAS,MODEL@ALIAS]

prints the key once, and the line that admits it: for the file in `serve.keys_file` or for the environment variable
HOUSING_KEYS. Store only the line; it holds a hash. Several keys can be valid at once. A key with models gets predictions of
these alone.
"""

import hashlib
import secrets
import sys
from collections.abc import Sequence

from server.api.auth import KEYS_VARIABLE, RIGHTS, ApiKey


def main(arguments: Sequence[str]) -> None:
    """Create a key and print it with its line."""
    if len(arguments) not in (2, 3) or not all(arguments) or len(arguments[0].split()) != 1:
        sys.exit(f"usage: python -m server.access NAME RIGHTS [MODELS]\nRIGHTS: any of {','.join(RIGHTS)}, separated by commas")
    key = secrets.token_urlsafe(32)
    line = " ".join((*arguments[:2], hashlib.sha256(key.encode()).hexdigest(), *arguments[2:]))
    try:
        ApiKey.parse(line)
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(f"Key (shown only once):\n  {key}\nLine for serve.keys_file or {KEYS_VARIABLE}:\n  {line}")


if __name__ == "__main__":
    main(sys.argv[1:])
