"""What `python -m local` runs: up, demo and soak, and what they show."""
