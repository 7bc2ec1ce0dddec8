"""True values for answered requests: accept, join and count once."""
