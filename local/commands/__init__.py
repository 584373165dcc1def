"""The commands `up`, `demo` and `soak` of `python -m local`, and their output."""
