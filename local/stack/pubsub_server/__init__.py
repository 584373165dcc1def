"""A small Pub/Sub server in Python, for machines without Google's emulator and for tests that inject faults.

It serves Google's clients over gRPC: topics, pull subscriptions, publish, pull, streaming pull, acknowledge, ack
deadlines and seek to a time. Other features (snapshots, push, filters, ordering keys, exactly once) are refused as
UNIMPLEMENTED, and there is no REST interface. Everything is in memory, and every project exists.
`python -m local.stack.pubsub_server --port 8085` runs it alone; tests run it in their process and inject faults:

    with PubsubServer() as server:            # server.host is 127.0.0.1:PORT
        server.refuse("Publish", grpc.StatusCode.UNAVAILABLE, times=2)
        server.redeliver(subscription, fraction=0.1, seed=1)
        server.reorder(subscription, seed=1)
        released = server.stall()

`service` implements the calls, `streaming_pull` the streaming one, `subscription` the state of messages, `requests`
checks requests, `faults` injects faults, and `server` connects all to gRPC.
"""

from local.stack.pubsub_server.server import PubsubServer

__all__ = ["PubsubServer"]
