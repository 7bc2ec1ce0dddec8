"""The prediction log: `python -m server.log read outputs/predictions` prints its entries."""

import sys

from server.prediction_log.reader import main

if __name__ == "__main__":
    sys.exit(main())
