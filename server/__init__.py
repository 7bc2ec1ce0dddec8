"""The server: serves the released model over HTTP, knowing its table only from the bundle."""
