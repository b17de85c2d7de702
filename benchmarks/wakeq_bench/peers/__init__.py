"""The systems that wakeq is measured against, each started in a process of its own."""


class PeerUnavailable(RuntimeError):
    """A peer cannot be had on this machine; the message says in one sentence why, so that a caller can skip it."""
