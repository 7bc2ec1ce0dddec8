"""The prediction log: `python -m server.log read serving/california-staging.log` prints its entries."""

import signal
import sys

from housing.feedback.log_reader import main

if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end silently if the output is piped into `head`
    sys.exit(main())
