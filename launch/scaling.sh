#!/usr/bin/env bash
# Makes the latents of the scaling study, trains its two grids and fits their laws: experiments/scaling/RESULTS.md. Call
# it again to go on where it stopped. Some four hours on two CPU cores.
#   launch/scaling.sh                       the budgets of RESULTS.md, 2e12 to 7e13 FLOPs
#   JOBS=8 launch/scaling.sh 2e+14 7e+14    those named, by cross-attention, eight runs at a time: on a GPU
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

experiment=experiments/scaling jobs=${JOBS:-2}
for budget in "$@"; do # of none that the grid has not, before anything is made
  vidflow sweep "--config=$experiment/isoflop.py" --workdir=runs/isoflop/sweep "--only=flops=$budget" \
    --backend=print > /dev/null
done
vidflow encode --config=experiments/bounce/text_to_video.py "--config.autoencoder.run=$experiment" \
  --config.data.clips=262144 --out=runs/isoflop/latents

grid() { # the experiment and, perhaps, a budget
  local only=${2:+--only=flops=$2}
  vidflow sweep "--config=$experiment/$1.py" "--workdir=runs/$1/sweep" "--jobs=$jobs" --evaluate=loss ${only:+"$only"}
}
laws() {
  vidflow fit "--results=runs/$1/sweep/results.jsonl" "--out=runs/$1/laws"
  vidflow fit "--results=runs/$1/sweep/results.jsonl" "--out=runs/$1/foretold" --holdout=largest
}

budgets=("$@")
if [ $# = 0 ]; then
  budgets=(2e+12 7e+12 2e+13 7e+13)
  grid in_context
fi
for budget in "${budgets[@]}"; do grid isoflop "$budget"; done
laws isoflop
if [ $# = 0 ]; then laws in_context; fi
