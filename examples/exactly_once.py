"""An effect that happens once, whatever comes twice: `python examples/exactly_once.py` beside a running `wakeq serve`.

A queue delivers at least once: whoever dies between a message's effect and its ack is given it again. Two keys make
that harmless. The publisher names each message by an idempotency key, so that publishing it again enqueues nothing. The
consumer writes that key down with the effect, in one transaction, and so knows what it has done before.
"""

import sqlite3

import wakeq


def publish_twice(queue: wakeq.Client) -> None:
    """As somebody does who lost the answer to the first."""
    for _ in range(2):
        published = queue.publish("payments", {"to": "alice", "cents": 500}, idempotency_key="payment-1")
        print(f"published payment-1 as message {published.first_seq}")


def pay(accounts: sqlite3.Connection, delivery: wakeq.SyncDelivery) -> None:
    """Book a payment, once."""
    try:
        with accounts:
            accounts.execute("INSERT INTO done VALUES (?)", (delivery.id,))
            accounts.execute(
                "UPDATE balance SET cents = cents + ? WHERE name = ?", (delivery.body["cents"], delivery.body["to"])
            )
    except sqlite3.IntegrityError:
        print(f"attempt {delivery.attempt}: {delivery.id} is booked already")
    else:
        print(f"attempt {delivery.attempt}: booked {delivery.id}")


def main() -> None:
    """The consumer fails after its first booking, and is given the message again."""
    accounts = sqlite3.connect(":memory:")
    accounts.executescript(
        "CREATE TABLE done (id TEXT PRIMARY KEY); CREATE TABLE balance (name TEXT PRIMARY KEY, cents INTEGER);"
        "INSERT INTO balance VALUES ('alice', 0);"
    )
    with wakeq.Client() as queue:
        queue.create_topic("payments", schema="json")
        publish_twice(queue)
        for crashes in (True, False):
            (delivery,) = queue.claim("payments", wait_s=10)
            pay(accounts, delivery)
            if crashes:
                delivery.nack(delay_s=0)
            else:
                delivery.ack()
        held = queue.topic("payments").messages
    ((cents,),) = accounts.execute("SELECT cents FROM balance")
    print(f"alice has {cents} cents, and {held} messages are left")
    accounts.close()


if __name__ == "__main__":
    main()
