"""The wakeq control plane's package: holds its place in the layout, no code yet."""
