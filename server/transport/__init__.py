"""From the socket to the app."""
