"""Parameters, and everything that is checked or created before a job starts."""
