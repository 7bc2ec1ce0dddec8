"""The table: download, check, version, split, and new rows."""
