"""What watches a job: its metrics, alerts and dashboard. Only `python -m monitoring` uses it; workers never load it."""
