#!/usr/bin/env bash
# Trains, scores and compares the arms of every table of experiments/ablations/RESULTS.md on bounce, with the settings and
# the compute of the demo, at three learning rates and with three seeds. Call it again to go on where it stopped. A table
# of two arms takes about an hour on two CPU cores.
#   launch/ablations.sh                    all tables
#   launch/ablations.sh blocks positions   those named
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

out=runs/ablations
vidflow train --config=experiments/bounce/autoencoder.py --workdir="$out/autoencoder"
shared=("--config.autoencoder.run=$out/autoencoder")
vidflow encode --config=experiments/bounce/text_to_video.py "${shared[@]}" "--out=$out/latents"
tables=("$@")
if [ $# = 0 ]; then tables=(blocks objective captions time modulation positions patches); fi
for table in "${tables[@]}"; do
  flags=("${shared[@]}" --config.data.source=cache "--config.data.path=$out/latents")
  if [ "$table" = captions ]; then flags=("${shared[@]}"); fi  # a cache has the captions of its encode
  vidflow ablate "--config=experiments/ablations/$table.py" "--workdir=$out/$table" --jobs=2 "${flags[@]}"
done
