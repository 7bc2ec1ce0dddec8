"""The prediction log: `python -m server.log read outputs/predictions` prints its entries."""

import sys

from housing.feedback.log_reader import main

if __name__ == "__main__":
    sys.exit(main())
