"""Delivery of messages that are pushed: posted to a URL instead of asked for."""
