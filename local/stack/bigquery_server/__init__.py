"""BigQuery on this machine: the emulator, with the Storage Write API as strict as the service's, upserts included.

The emulator's own takes unknown columns, drops `_CHANGE_TYPE` and forgets primary keys.
`access` keeps web pages out and SQL away from files, `append` serves and checks requests, `rows` reads what they hold,
`tables` says what a change does to a table, `faults` breaks on command.
"""
