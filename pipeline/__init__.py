"""The dataflow: Pub/Sub readings to one BigQuery row per interval."""
