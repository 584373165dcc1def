"""Where rows, silences and dead letters are written: BigQuery tables, Pub/Sub topics, or the terminal.

A sink of rows returns a `RejectedRow` for each row that it could not write; a sink of dead letters returns nothing.
"""
