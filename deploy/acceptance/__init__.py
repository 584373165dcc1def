"""`make acceptance`: runs everything once in a real project, checks it, and deletes it again."""
