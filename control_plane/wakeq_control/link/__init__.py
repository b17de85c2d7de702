"""The control plane's way to the queue: what it sends, what it hears, and who is there."""
