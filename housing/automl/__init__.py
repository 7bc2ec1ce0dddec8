"""Search for the best ensemble within a time budget."""
