"""`llamactl` for each line of standard input, a list of its arguments as JSON: says its exit code and what it wrote.

Most of what it costs is the import of llama_deploy. Each line has a process of its own, forked behind that.
"""

# mypy: disable-error-code="import-not-found"

import json
import os
import sys
import tempfile
import traceback
from typing import IO

from llama_deploy.cli.__main__ import main


def call(arguments: list[str], out: IO[bytes], err: IO[bytes]) -> int:
    """Its exit code."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        sys.argv = ["llamactl", *arguments]
        sys.exit(main())
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Not behind what the parent would do at its end.
        os._exit(code)


for line in sys.stdin:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        said: dict[str, object] = {"code": call(json.loads(line), out, err)}
        for name, file in (("out", out), ("err", err)):
            file.seek(0)
            said[name] = file.read().decode()
    sys.stdout.write(f"{json.dumps(said)}\n")
    sys.stdout.flush()
