"""The served model: loads each published version and swaps it between requests."""
