#!/usr/bin/env bash
# The whole pipeline on the built-in dataset, in a virtual environment that it creates on first use.
set -euo pipefail

# shellcheck source=scripts/setup_venv.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup_venv.sh"

run_after_set_up quickstart.summaries quickstart.options "$@"
