"""Runs a command whose Python processes have wakeq where llama_deploy has its own queue.

    python -m wakeq.integrations.llama_deploy llamactl serve deployment.yml

The command and what it starts find a `sitecustomize` on their path that waits for llama_deploy to be imported; every
other program runs as it would without.
"""

import os
import sys
from pathlib import Path

STARTUP = Path(__file__).with_name("startup")
"""What stands in front of a command's ``PYTHONPATH``."""

_USAGE = "usage: python -m wakeq.integrations.llama_deploy COMMAND [ARGUMENT]...\n"


def main() -> None:
    """Become the command of the command line. Exits with 2 without one, and with 127 where there is no such command."""
    command = sys.argv[1:]
    if command[:1] in (["-h"], ["--help"]):
        sys.stdout.write(_USAGE)
        return
    if not command:
        sys.stderr.write(_USAGE)
        sys.exit(2)
    paths = [str(STARTUP), *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        os.execvpe(command[0], command, {**os.environ, "PYTHONPATH": os.pathsep.join(paths)})  # noqa: S606
    except OSError as error:
        sys.stderr.write(f"{command[0]} can't be run: {error.strerror}.\n")
        sys.exit(127)


if __name__ == "__main__":
    main()
