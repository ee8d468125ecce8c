# Sourced by the other scripts: makes .venv with the pinned requirements once, and enters it.
# environment.sh [dev]: with `dev`, what the tests need too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=""
for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
  if [ -n "$candidate" ] && "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
if [ -z "$python" ]; then
  echo "vidflow needs Python 3.11 or newer with its venv module: install one, or name it with PYTHON=/path/to/python." >&2
  exit 2
fi

kind=run wanted=requirements.txt
if [ "${1:-}" = dev ]; then kind=dev wanted="$wanted requirements-dev.txt"; fi  # other words are of the script that calls
# The stamp holds what was installed, so a changed pin installs again and an interrupted install is not taken for whole.
stamp=.venv/installed-$kind
if [ ! -x .venv/bin/python ]; then "$python" -m venv --clear .venv; fi
# venv puts its pip there last: without it, that was interrupted.
if [ ! -x .venv/bin/pip ]; then .venv/bin/python -m ensurepip --default-pip > /dev/null; fi
if ! cat setup.py $wanted | cmp -s - "$stamp"; then
  echo "Installing the requirements into .venv (a few minutes, once) ..."
  .venv/bin/pip install --quiet --disable-pip-version-check $(printf -- '-r %s ' $wanted) -e .
  cat setup.py $wanted > "$stamp"
fi
source .venv/bin/activate
