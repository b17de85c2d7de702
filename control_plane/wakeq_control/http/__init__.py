"""llama_deploy's control-plane API: bytes to calls of the engine and back."""
