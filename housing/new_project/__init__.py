"""Projects of one's own: the template of `housing new`."""
