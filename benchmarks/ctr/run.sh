#!/bin/sh
# Click models beside RecBole's, and the time of POST /predict; `make bench` calls this.
set -eu
here=$(dirname "$0")
if [ -z "${DISTILREC_DATA:-}" ]; then
    echo "ctr: skipped, set DISTILREC_DATA to a folder that holds frappe-nfm/" >&2
    exit 0
fi
for script in deepfm_speed kd_dagfm serve_latency; do
    nice -n 5 "${PYTHON:-$here/../../.venv/bin/python}" "$here/$script.py"
done
