"""Metrics, alerts and dashboard of a job, written by `python -m deploy.monitoring`; workers never load it."""
