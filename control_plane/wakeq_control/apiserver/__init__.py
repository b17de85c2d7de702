"""llama_deploy's API server, for `llamactl` and its clients: HTTP in front of deployments and their control planes."""
