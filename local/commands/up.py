"""`python -m local up`: the emulators, with all the pipeline needs in them, until Ctrl-C."""

import argparse
import sys
import time

from local.stack import emulators

PROJECT = "sensor-stream-local"
TOPIC = "sensor-readings"
SUBSCRIPTION = "sensor-readings-pipeline"
LISTENER = "sensor-readings-listener"
DATASET = "sensors"


def main(argv: list[str]) -> int:
    """Run until Ctrl-C, the usual end, so the exit code is then 0. LocalStackError if an emulator fails."""
    parser = argparse.ArgumentParser(prog="python -m local up", description=__doc__, allow_abbrev=False)
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
