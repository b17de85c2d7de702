"""What the scripts `client` and `publisher` do, for what each line of standard input asks: a script's name and its
arguments, as JSON.

Most of what one costs is the import of llama_deploy. Each line has a client of its own, and an event loop.
"""

import asyncio
import json
import sys
from importlib import import_module

sys.path.insert(0, sys.argv[1])

for line in sys.stdin:
    name, *arguments = json.loads(line)
    script = import_module(f"llama_deploy_{name}")
    asyncio.run(script.run(script.parser().parse_args(arguments)))
