"""Files that the server shares with the processes beside it: releases, the prediction log and metrics."""
