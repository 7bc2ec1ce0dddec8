"""Programs of the peers that `scripts/bench serving` measures beside the server."""
