"""A BigQuery server: bqemulator with a Storage Write API that is as strict as the service's, including upserts.

The emulator's own API accepts unknown columns, ignores `_CHANGE_TYPE` and does not store primary keys.
`access` refuses requests of web pages and SQL that uses files, `append` serves and checks requests, `rows` decodes
their rows, `tables` applies changes to tables, and `faults` injects faults.
"""
