"""How every command of `wakeq` looks."""

from typing import Any

# Rich's boxes cut option names off in a terminal of 80 columns.
STYLE: dict[str, Any] = {"add_completion": False, "pretty_exceptions_enable": False, "rich_markup_mode": None}
