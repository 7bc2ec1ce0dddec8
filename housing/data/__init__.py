"""The table: download, validation, versions, splits and new rows."""
