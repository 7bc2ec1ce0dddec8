"""Settings, errors, releases on disk, worker ids and the shutdown flag."""
