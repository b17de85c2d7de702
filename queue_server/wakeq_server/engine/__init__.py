"""Waiting: consumers parked until there is something for them, publishers until their messages are durable."""
