"""Where the control plane's state is kept."""
