"""Metrics, alerts and dashboard of a job, written by `python -m deploy.monitoring`. Not in the template's image."""
