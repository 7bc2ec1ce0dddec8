"""Model lifecycle: pull, verify and swap versions."""
