"""The protocol's own suite: it knows a server by its base URL alone, and what it can do by `GET /v1`."""
