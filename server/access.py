"""Who may ask: API keys with rights of their own, and how often each may.

    python -m server.access NAME predict,metrics

makes a key, prints it once, and prints the line that lets it in: for the file that `serve.keys_file` names, or for the
environment variable HOUSING_KEYS. Only the line, which holds a hash, has to be kept; several keys are good at once.
"""

import hashlib
import secrets
import sys
from collections.abc import Sequence

from server.api.auth import KEYS_VARIABLE, RIGHTS, ApiKey


def main(arguments: Sequence[str]) -> None:
    """Make a key."""
    if len(arguments) != 2 or len(arguments[0].split()) != 1:
        sys.exit(f"usage: python -m server.access NAME RIGHTS      rights: some of {','.join(RIGHTS)}")
    key = secrets.token_urlsafe(32)
    line = f"{arguments[0]} {arguments[1]} {hashlib.sha256(key.encode()).hexdigest()}"
    try:
        ApiKey.parse(line)
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(f"the key, which is shown this once:\n  {key}\nthe line for serve.keys_file or {KEYS_VARIABLE}:\n  {line}")


if __name__ == "__main__":
    main(sys.argv[1:])
