"""The wakeq queue server."""
