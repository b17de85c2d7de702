"""The tables, and how a database of an older format becomes one of this.

A message's number is its topic's slot and, below it, its seq: rows of a table with an integer key stand in its order
and fill their pages, whatever their size. (In a table WITHOUT ROWID, a row of more than a quarter of a page goes to a
page of its own: a million messages of 1 KB took 4.7 GB.) Slots of dropped topics are used again, ids of topics never.

Counters that must never go back are kept twice, so that a damaged one shows.
"""

import sqlite3
from pathlib import Path
from zlib import crc32

from wakeq_server.errors import StartupError
from wakeq_server.store import rows
from wakeq_server.store.rows import SEQ_BITS, Damaged

FORMAT = 2
APPLICATION_ID = 0x77616B71
PAGE_MIN = 512

_TABLES = """
CREATE TABLE boot (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    epoch INTEGER NOT NULL, epoch_again INTEGER NOT NULL CHECK (epoch_again = -epoch),
    next_topic INTEGER NOT NULL, next_topic_again INTEGER NOT NULL CHECK (next_topic_again = -next_topic));
INSERT INTO boot VALUES (1, 0, 0, 1, -1);
CREATE TABLE topic (
    id INTEGER PRIMARY KEY, slot INTEGER NOT NULL UNIQUE, name TEXT NOT NULL, config TEXT NOT NULL,
    created_at INTEGER NOT NULL, paused INTEGER NOT NULL, crc INTEGER NOT NULL,
    next_seq INTEGER NOT NULL DEFAULT 1, next_seq_again INTEGER NOT NULL DEFAULT -1 CHECK (next_seq_again = -next_seq));
CREATE TABLE grp (
    topic INTEGER NOT NULL, id INTEGER NOT NULL, name TEXT NOT NULL, start INTEGER NOT NULL, cursor INTEGER NOT NULL,
    crc INTEGER NOT NULL, PRIMARY KEY (topic, id)) WITHOUT ROWID;
CREATE TABLE push (
    topic INTEGER NOT NULL, name TEXT NOT NULL, id INTEGER NOT NULL, grp INTEGER NOT NULL, url TEXT NOT NULL,
    max_in_flight INTEGER NOT NULL, timeout INTEGER NOT NULL, crc INTEGER NOT NULL,
    PRIMARY KEY (topic, name)) WITHOUT ROWID;
CREATE TABLE message (
    id INTEGER PRIMARY KEY, size INTEGER NOT NULL, published_at INTEGER NOT NULL, content_type TEXT, headers TEXT,
    message_id TEXT, key TEXT, due_at INTEGER, expires_at INTEGER, body_crc INTEGER NOT NULL, crc INTEGER NOT NULL,
    body BLOB NOT NULL);
CREATE TABLE history (
    topic INTEGER NOT NULL, grp INTEGER NOT NULL, seq INTEGER NOT NULL, standing TEXT NOT NULL,
    attempt INTEGER NOT NULL, due_at INTEGER NOT NULL, span INTEGER NOT NULL, epoch INTEGER NOT NULL,
    number INTEGER NOT NULL, reason TEXT, crc INTEGER NOT NULL, PRIMARY KEY (topic, grp, seq)) WITHOUT ROWID;
CREATE TABLE seen (
    topic INTEGER NOT NULL, digest TEXT NOT NULL, fingerprint TEXT NOT NULL, first_seq INTEGER NOT NULL,
    count INTEGER NOT NULL, expires_at INTEGER NOT NULL, crc INTEGER NOT NULL,
    PRIMARY KEY (topic, digest)) WITHOUT ROWID;
CREATE INDEX seen_until ON seen (topic, expires_at);
"""
_MARKS = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT};"


def checked_version(db: sqlite3.Connection, path: Path) -> int:
    """The format of a database. Raises StartupError where it isn't ours to read."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (application,) = db.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION_ID:
        raise StartupError(
            f"{path} is an SQLite database, but not one of wakeq's", "name another directory with --data"
        )
    if version > FORMAT:
        raise StartupError(
            f"{path} is of a newer wakeq: format {version}, and this one reads {FORMAT}",
            "upgrade wakeq, or name another directory with --data",
        )
    return int(version)


def check(db: sqlite3.Connection) -> None:
    """Look for damage that reading would not meet: pages, their order, indexes, and counters. Raises Damaged."""
    (found,) = db.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise Damaged(f"it is damaged ({found})")


def create(db: sqlite3.Connection) -> None:
    """Make the tables of an empty database, in one step."""
    db.executescript(f"BEGIN; {_TABLES} {_MARKS} COMMIT;")


def upgrade(db: sqlite3.Connection, version: int) -> None:
    """Make a database of an older format one of this, in one step."""
    assert version == 1
    try:
        db.execute("BEGIN IMMEDIATE")
        _from_1(db)
        db.execute(f"PRAGMA user_version = {FORMAT}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


# Format 1 had one group a topic, whose messages were all that hadn't been acked. What had a history had been delivered;
# in front of the cursor only what has one is not done with, so the others there are given one.
_FROM_1 = (
    """
    INSERT INTO boot SELECT only, epoch, -epoch, next_topic, -next_topic FROM old_boot WHERE true
    ON CONFLICT (only) DO UPDATE SET epoch = excluded.epoch, epoch_again = excluded.epoch_again,
        next_topic = excluded.next_topic, next_topic_again = excluded.next_topic_again
    """,
    f"""
    INSERT INTO topic ({rows.TOPIC}, next_seq, next_seq_again)
    SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, next_seq, -next_seq
    FROM (SELECT sealed(id, id, name, config, micros(created_at), 0) AS value, next_seq FROM old_topic)
    """,
    f"""
    INSERT INTO grp ({rows.GROUP}) SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5
    FROM (SELECT sealed(id, 0, 'default', 1, (
        SELECT coalesce(max(seq) + 1, 1) FROM old_history WHERE old_history.topic = old_topic.id)) AS value
        FROM old_topic)
    """,
    f"""
    INSERT INTO message ({rows.MESSAGE}, body)
    SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, value->>7, value->>8,
        value->>9, value->>10, body
    FROM (SELECT sealed(topic << {SEQ_BITS} | seq, length(body), micros(published_at), content_type, headers,
        NULL, NULL, NULL, NULL, crc32(body)) AS value, body FROM old_message)
    """,
    f"""
    INSERT INTO history ({rows.HISTORY})
    SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, value->>7, value->>8,
        value->>9, value->>10
    FROM (SELECT sealed(topic, 0, seq,
            CASE WHEN number > 0 THEN 'leased' WHEN due_at > 0 THEN 'delayed' ELSE 'ready' END,
            attempt, micros(due_at), micros(span_s), epoch, number, NULL) AS value FROM old_history
        UNION ALL SELECT sealed(topic, 0, seq, 'ready', 0, 0, 0, 0, 0, NULL) FROM old_message
        WHERE (topic, seq) NOT IN (SELECT topic, seq FROM old_history)
            AND seq < (SELECT max(seq) FROM old_history WHERE old_history.topic = old_message.topic))
    """,
)  # fmt: skip


def _from_1(db: sqlite3.Connection) -> None:
    db.create_function("sealed", -1, lambda *row: rows.sealed([row])[1:-1], deterministic=True)
    db.create_function("micros", 1, rows.micros, deterministic=True)
    db.create_function("crc32", 1, crc32, deterministic=True)
    old = ("boot", "topic", "message", "history")
    for table in old:
        db.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
    for statement in _TABLES.split(";"):
        db.execute(statement)
    for statement in _FROM_1:
        db.execute(statement)
    for table in old:
        db.execute(f"DROP TABLE old_{table}")
