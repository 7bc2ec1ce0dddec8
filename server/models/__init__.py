"""Which version is served: pull, verify and swap."""
