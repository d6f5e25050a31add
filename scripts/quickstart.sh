#!/usr/bin/env bash
# The whole pipeline on the built-in dataset, in a virtual environment that it creates on first use.
set -euo pipefail

# shellcheck source=scripts/setup_venv.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup_venv.sh"

# The arguments are read before minutes are spent on the set-up; the reader needs nothing but Python itself.
find_python
"$PYTHON" "$ROOT/scripts/quickstart_options.py" "$@"
for word in "$@"; do
    case $word in -h | --help) exit 0 ;; esac
done

set_up_venv
exec python "$ROOT/scripts/quickstart.py" "$@"
