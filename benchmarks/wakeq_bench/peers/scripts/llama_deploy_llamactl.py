"""Is the original `llamactl`, which prints one more line of JSON: what it took once it was loaded."""

# mypy: disable-error-code="import-not-found"

import sys
import time

from _output import say_json
from llama_deploy.cli import llamactl


def main() -> None:
    """Do what the command line says."""
    began, cpu_began = time.perf_counter(), time.process_time()
    llamactl.main(sys.argv[1:], prog_name="llamactl", standalone_mode=False)
    say_json({"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu_began})


if __name__ == "__main__":
    main()
