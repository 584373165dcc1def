#!/bin/sh
# Substitute for Beam's boot with --worker_pool, the mode that needs no Dataflow service.
exec python -m apache_beam.runners.worker.worker_pool_main "$@"
