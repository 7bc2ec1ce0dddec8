"""One tracked run: its key, outcome, export and reproduction."""
