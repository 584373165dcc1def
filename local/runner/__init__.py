"""The pipeline on Beam's local runner: its Pub/Sub source, its watermark and the removal of duplicates."""
