#!/usr/bin/env python3
"""Shows prices as they come, and how many it missed: a slow client that knows it.

    highwater broadcast --port 6379 --slow latest
    python3 examples/ticker.py publish             # in one terminal
    python3 examples/ticker.py watch 0.5           # in another: half a second for each price

Needs redis-py (`pip install redis`).
"""
import sys
import time

import redis

LOST = b"__highwater__:lost"


def publish(server):
    """A new price of three currencies, a thousand times a second."""
    for number in range(1_000_000):
        for currency in ("eur", "gbp", "jpy"):
            server.publish(f"ticks.{currency}", f"{number} {'.' * 1000}")
        time.sleep(0.001)


def watch(server, seconds_each):
    """Takes its time for each price, and is told what it did not get."""
    subscription = server.pubsub(ignore_subscribe_messages=True)
    subscription.psubscribe("ticks.*")
    subscription.subscribe(LOST)
    for message in subscription.listen():
        if message["channel"] == LOST:
            channel, count = message["data"].rsplit(b" ", 1)
            print(f"{channel.decode():12} missed {count.decode()}")
            continue
        price = message["data"].split()[0].decode()
        print(f"{message['channel'].decode():12} {price}")
        time.sleep(seconds_each)


def main():
    server = redis.Redis(port=6379)
    match sys.argv[1:]:
        case ["publish"]:
            publish(server)
        case ["watch", *rest]:
            watch(server, float(rest[0]) if rest else 0.5)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
