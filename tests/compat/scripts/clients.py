"""What the script `client` does, for what each line of standard input asks: a list of that script's arguments, as JSON.

Most of what a client costs is the import of llama_deploy. Each line has a client of its own, and an event loop.
"""

# mypy: disable-error-code="import-not-found"

import asyncio
import json
import sys

sys.path.insert(0, sys.argv[1])
from llama_deploy_client import parser, run

for line in sys.stdin:
    asyncio.run(run(parser().parse_args(json.loads(line))))
