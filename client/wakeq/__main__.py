"""`python -m wakeq` is `wakeq`."""

from wakeq.cli import main

main()
