#!/bin/sh
# Training speed beside RecBole and RecTools; `make bench` calls this. Arguments go to run.py.
set -eu
here=$(dirname "$0")
if [ -z "${DISTILREC_DATA:-}" ] && [ $# -eq 0 ]; then
    echo "speed: skipped, set DISTILREC_DATA to a folder that holds amazon-beauty/" >&2
    exit 0
fi
exec nice -n 5 "${PYTHON:-$here/../../.venv/bin/python}" "$here/run.py" "$@"
