"""wakeq under other systems' interfaces. Each is imported by whoever wants it, and needs that system installed."""
