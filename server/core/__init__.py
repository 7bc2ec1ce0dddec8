"""Settings, errors, worker ids and the shutdown flag."""
