"""Lines that break at every byte: nothing is lost, nothing is done twice, and what was taken comes back."""
