"""The shipped graph beside other Python stream engines, each in a venv of its own (`make bench-peers`)."""
