"""Transport: from the socket to the app."""
