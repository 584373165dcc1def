"""The shipped graph beside other Python stream engines, in a separate venv (`make bench-peers`)."""
