"""Unmodified llama_deploy clients and deployments on wakeq's queue server."""
