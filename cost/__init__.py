"""What a job costs a month, at list prices: `python -m cost --rate=... --devices=... --interval=... [--pack=...]`."""
