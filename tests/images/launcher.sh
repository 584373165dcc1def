#!/bin/sh
# Substitute for Google's template launcher: starts the entry point with the launch parameters as flags.
exec python "$FLEX_TEMPLATE_PYTHON_PY_FILE" "$@"
