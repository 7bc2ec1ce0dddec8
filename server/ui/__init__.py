"""The prediction page and the API documentation in the browser."""
