"""The control plane: services, sessions and tasks of llama_deploy's clients, without one polling loop."""
