"""The monthly price of a job: `python -m deploy.cost --rate=... --devices=... --interval=... [--pack=...]`."""
