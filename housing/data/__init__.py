"""The table: download, validation, versions and splits."""
