#!/usr/bin/env bash
# Everything here that wants an accelerator, within 25 minutes: each part has a time limit, and what a part has measured
# by then stays. Against PyTorch where the Python has it.
#
#   PYTHON=.venv/bin/python bash benchmarks/accelerator.sh FOLDER [--smoke] [PART ...]
#
# FOLDER gets a JSON file and a log of every part and summary.md. The parts: kernels attention step_1b step_5b
# step_1b_xla. --smoke runs each benchmark once in small, on a CPU too, in under two minutes.
set -uo pipefail

if [ $# -eq 0 ] || [[ $1 == -* ]]; then
  echo "usage: PYTHON=python bash benchmarks/accelerator.sh FOLDER [--smoke] [PART ...]" >&2
  exit 2
fi
mkdir -p "$1" && folder=$(cd "$1" && pwd) || exit 2
shift
smoke=""
parts="kernels attention step_1b step_5b step_1b_xla"
if [ "${1:-}" = --smoke ]; then
  smoke=yes parts="kernels attention step_1b"
  shift
fi
for name in "$@"; do
  if [[ " $parts " != *" $name "* ]]; then
    echo "benchmarks/accelerator.sh: error: There is no part '$name'${smoke:+ in small}: use one of ${parts// /, }." >&2
    exit 2
  fi
done
parts=" ${*:-$parts} "
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
PYTHON=${PYTHON:-python}
against=""
if "$PYTHON" -c 'import torch' 2>/dev/null; then against=--against=torch; fi

# part NAME SECONDS SCRIPT FLAG...: runs benchmarks/SCRIPT with these flags, or with those of `small` for a smoke run.
part() {
  local name=$1 seconds=$2 script=$3
  shift 3
  if [[ $parts != *" $name "* ]]; then return; fi
  if [ -n "$smoke" ]; then set -- "${small[@]}"; fi
  echo "== $name: $script $*"
  timeout --kill-after=10 "$seconds" "$PYTHON" "benchmarks/$script" "$@" --json="$folder/$name.json" 2>&1 |
    tee "$folder/$name.log"
  local status=${PIPESTATUS[0]}
  if [ "$status" -eq 124 ]; then echo "$name was stopped after $seconds s; what it had measured is kept."; fi
  if [ "$status" -ne 0 ]; then failed="$failed $name"; fi
}

failed=""
small=(--limit=100)
part kernels 110 kernels.py --limit=50
small=(--lengths=256 --heads=2 --head-size=32 --seconds=0.1 $against)
part attention 300 attention.py --lengths=4096,32768,73728 --seconds=1 --limit=60 $against
small=(--sizes=smoke --tokens=64 --remat=full --seconds=0.1 $against)
set -- --remat=full --seconds=1 --limit=180
part step_1b 590 train_step.py --sizes=1b --tokens=4096,16384,32768,73728 "$@" $against
part step_5b 400 train_step.py --sizes=5b --tokens=4096,16384,32768 "$@" $against
part step_1b_xla 80 train_step.py --sizes=1b --tokens=4096,16384 "$@" --kernel=xla

"$PYTHON" benchmarks/summary.py "$folder" > "$folder/summary.md" || exit 1
echo "Read $folder/summary.md"
if [ -n "$failed" ]; then
  echo "Not whole:$failed" >&2
  exit 1
fi
