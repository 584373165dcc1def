"""`make acceptance`: everything here once in a real project, checked and torn down. Nothing else needs it."""
