"""`python -m local up`: the emulators, with the topic, subscriptions and dataset that the pipeline needs."""

import sys
import time

from local.stack import emulators
from pipeline.launch import one_line

PROJECT = "sensor-stream-local"
TOPIC = "sensor-readings"
SUBSCRIPTION = "sensor-readings-pipeline"
LISTENER = "sensor-readings-listener"
DATASET = "sensors"


def main(argv: list[str]) -> int:
    """Run until Ctrl-C; returns 0, because that is how it is meant to end. LocalStackError if an emulator fails."""
    parser = one_line.Parser(prog="python -m local up", description=__doc__, allow_abbrev=False)
    parser.add_argument("--pubsub-port", type=int, metavar="PORT", help="default: a free one")
    parser.add_argument("--bigquery-port", type=int, metavar="PORT", help="default: a free one")
    parser.add_argument("--bigquery-storage-port", type=int, metavar="PORT", help="default: a free one")
    flags = parser.parse_args(argv)
    try:
        with (
            emulators.pubsub_emulator(PROJECT, flags.pubsub_port) as pubsub,
            emulators.bigquery_emulator(
                PROJECT, flags.bigquery_port, storage_port=flags.bigquery_storage_port
            ) as bigquery,
        ):
            emulators.create_topic(pubsub.host, PROJECT, TOPIC)
            for subscription in (SUBSCRIPTION, LISTENER):
                emulators.create_subscription(pubsub.host, PROJECT, TOPIC, subscription)
            emulators.create_dataset(bigquery.host, PROJECT, DATASET)
            environment = {
                **pubsub.env,
                **bigquery.env,
                "PROJECT_ID": PROJECT,
                "TOPIC_NAME": TOPIC,
                "SUBSCRIPTION_NAME": SUBSCRIPTION,
                "BQ_TABLE": f"{PROJECT}:{DATASET}.readings",
            }
            print("\n".join(f"export {name}={value}" for name, value in environment.items()), flush=True)
            print("Running until Ctrl-C. Paste the lines above into the shells you work in.", file=sys.stderr)
            while True:
                pubsub.check()
                bigquery.check()
                time.sleep(0.5)
    except KeyboardInterrupt:
        print("Stopped; nothing is left running.", file=sys.stderr)
        return 0
