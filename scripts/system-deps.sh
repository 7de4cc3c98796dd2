#!/usr/bin/env bash
# Installs what the tests need of the system, where this may be done (root, apt), and names it where it may not.
set -euo pipefail

# Debian packages, one a line; the program that shows that a package is there stands behind the colon.
packages=()

missing=()
for entry in "${packages[@]+"${packages[@]}"}"; do
    command -v "${entry#*:}" >/dev/null 2>&1 || missing+=("${entry%%:*}")
done

if [ ${#packages[@]} -eq 0 ]; then
    echo "system-deps: the tests need nothing of the system yet"
elif [ ${#missing[@]} -eq 0 ]; then
    echo "system-deps: everything is here"
elif [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "system-deps: installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
else
    echo "system-deps: the tests need ${missing[*]}; install them (apt install ${missing[*]})" >&2
    [ "${CI:-}" = "true" ] && exit 1
    echo "system-deps: tests that need them are skipped" >&2
fi
