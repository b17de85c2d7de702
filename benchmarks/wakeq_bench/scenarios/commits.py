"""What a commit costs on this disk, without a server: the yardstick for what durability adds."""

import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path

_BODY = b"x" * 200


def commit_seconds(count: int) -> list[float]:
    """Durations of transactions with one small insert each, in SQLite as wakeq sets it up: WAL, synced in full."""
    with (
        tempfile.TemporaryDirectory(prefix="wakeq-bench-") as directory,
        closing(sqlite3.connect(Path(directory) / "commits.sqlite3", isolation_level=None)) as db,
    ):
        for setting in ("journal_mode = WAL", "synchronous = FULL", "fullfsync = ON"):
            db.execute(f"PRAGMA {setting}")
        db.execute("CREATE TABLE message (seq INTEGER PRIMARY KEY, body BLOB NOT NULL)")
        return [_commit(db, number) for number in range(count)]


def _commit(db: sqlite3.Connection, number: int) -> float:
    started = time.perf_counter()
    db.execute("BEGIN IMMEDIATE")
    db.execute("INSERT INTO message VALUES (?, ?)", (number, _BODY))
    db.execute("COMMIT")
    return time.perf_counter() - started
