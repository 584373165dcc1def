"""Shows what the pipeline would read from messages: `python -m pipeline.preview`."""
