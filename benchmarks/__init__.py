"""What a reading costs: the shipped graph beside other ways to the same rows (`make bench`)."""
