"""`make acceptance`: everything of this repository once in a real project, checked and torn down. Nothing else needs it."""
