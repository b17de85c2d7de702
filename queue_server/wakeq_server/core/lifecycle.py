"""The life of a message in one group of its topic.

                      commit              claim               ack, commit
    publish → PENDING ───────→ READY ─────────────→ LEASED ─→ SETTLING ──→ GONE
                 │ abort         ↑  ↖ undo, expire ←───┘          │ abort: LEASED again
                 ↓               │ due                            │ nack, commit
               GONE           DELAYED ←───────────────────────────┤ (without a delay, or release: READY)
                                 ↑ publish with a delay, commit   │ the last attempt; dead, commit
                              READY ←───────── redrive ─────── DEAD

The rules, and there are no others:

* A message is visible only after the transaction that holds it is durable.
* A claim takes the READY message with the lowest seq. One that comes back (undone, released, expired,
  nacked) takes its old place.
* A LEASED message has one lease. What ends that lease makes every later use of its id *stale*.
* Undoing a lease (the consumer hung up, was cancelled, or never got the message) does not count as an attempt;
  nor does a release, which is the same said by the consumer; an expired lease does.
* A message with an ordering key is READY, but out of reach while an earlier one with its key is unsettled, whatever
  that one's state; a DEAD one lets go of its key.
* After `max_deliveries` attempts a nack or an expiry leaves the message DEAD: out of reach until it is redriven, or its
  time is over.
* A time to live ends what is READY or DELAYED, never what is in somebody's hands.
* A settle takes effect when its transaction is durable. Until then the message is SETTLING: out of reach for
  others, its lease still alive, its clock stopped.
* SETTLING whose transaction fails is LEASED again, as if nobody had asked.
"""

from enum import Enum


class State(Enum):
    """Where a message stands in a group."""

    # Enum's own is computed from the name, in Python, at every look into the table.
    __hash__ = object.__hash__

    PENDING = "pending"
    READY = "ready"
    DELAYED = "delayed"
    LEASED = "leased"
    SETTLING = "settling"
    DEAD = "dead"
    GONE = "gone"


class Event(Enum):
    """What can happen to it."""

    __hash__ = object.__hash__

    COMMIT = "commit"
    ABORT = "abort"
    CLAIM = "claim"
    SETTLE = "settle"
    COMMIT_ACK = "commit ack"
    COMMIT_NACK = "commit nack"
    COMMIT_NACK_DELAYED = "commit nack with a delay"
    COMMIT_DEAD = "commit dead"
    COMMIT_RELEASE = "commit release"
    UNDO = "undo"
    EXPIRE = "expire"
    EXPIRE_LAST = "expire, the last attempt"
    DUE = "due"
    DROP = "drop"
    REDRIVE = "redrive"


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.PENDING, Event.COMMIT): State.READY,
    (State.PENDING, Event.ABORT): State.GONE,
    (State.READY, Event.CLAIM): State.LEASED,
    (State.READY, Event.DROP): State.GONE,
    (State.DELAYED, Event.DUE): State.READY,
    (State.DELAYED, Event.DROP): State.GONE,
    (State.DEAD, Event.REDRIVE): State.READY,
    (State.DEAD, Event.DROP): State.GONE,
    (State.LEASED, Event.UNDO): State.READY,
    (State.LEASED, Event.EXPIRE): State.READY,
    (State.LEASED, Event.EXPIRE_LAST): State.DEAD,
    (State.LEASED, Event.SETTLE): State.SETTLING,
    (State.SETTLING, Event.COMMIT_ACK): State.GONE,
    (State.SETTLING, Event.COMMIT_NACK): State.READY,
    (State.SETTLING, Event.COMMIT_NACK_DELAYED): State.DELAYED,
    (State.SETTLING, Event.COMMIT_DEAD): State.DEAD,
    (State.SETTLING, Event.COMMIT_RELEASE): State.READY,
    (State.SETTLING, Event.ABORT): State.LEASED,
}


def after(state: State, event: Event) -> State:
    """The state that follows; an illegal transition is a bug here, never a client's fault."""
    return TRANSITIONS[state, event]
