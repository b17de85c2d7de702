"""What wakeq's servers have in common; no client needs it, and none loads it."""
