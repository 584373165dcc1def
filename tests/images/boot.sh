#!/bin/sh
# Stands in for Beam's boot, in the way that can be tried without a Dataflow service: with --worker_pool.
exec python -m apache_beam.runners.worker.worker_pool_main "$@"
