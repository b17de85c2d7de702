"""Clients that mean no good, over bare sockets: all answers are the protocol's, and nothing is left over."""
