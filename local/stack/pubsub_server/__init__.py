"""A small Pub/Sub server in plain Python: runs the system where Google's emulator is missing, and breaks on command.

It speaks gRPC to Google's own clients: topics, pull subscriptions, publish, pull, streaming pull, acknowledge, ack
deadlines, seek to a time. What it does not know (snapshots, push, filters, ordering keys, exactly once, REST) it
refuses as UNIMPLEMENTED. Everything is in memory, and any project exists. `python -m local.stack.pubsub_server --port
8085` runs it by itself; tests run it in their own process and give it faults:

    with PubsubServer() as server:            # server.host is 127.0.0.1:PORT
        server.refuse("Publish", grpc.StatusCode.UNAVAILABLE, times=2)
        server.redeliver(subscription, fraction=0.1, seed=1)
        server.reorder(subscription, seed=1)
        released = server.stall()

`service` says what each call does, `streaming_pull` the one that lasts, `subscription` where each message is,
`requests` what a request may hold, `faults` breaks on command, `server` puts them behind gRPC.
"""

from local.stack.pubsub_server.server import PubsubServer

__all__ = ["PubsubServer"]
