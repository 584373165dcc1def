"""The namespace of the job's own metrics; docs/operate.md lists them."""

METRICS = "sensor_stream"
