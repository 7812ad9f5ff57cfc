#!/usr/bin/env bash
# Opens exported models with what they are for: llama.cpp, built into .venv-llama (minutes, once), by llama-cpp-python.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=.venv-llama
if ! "$venv/bin/python" -c 'import llama_cpp' 2>/dev/null; then
  echo "test-exports: builds llama-cpp-python in $venv (minutes, once)" >&2
  .venv/bin/python -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet llama-cpp-python==0.3.36
fi
BYHEART_LLAMA_PYTHON=$PWD/$venv/bin/python .venv/bin/python -m pytest -m "slow or not slow" tests/test_export.py
