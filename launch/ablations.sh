#!/usr/bin/env bash
# Trains, scores and compares the arms of every table of experiments/ablations/RESULTS.md, experiments/moviegen/RESULTS.md
# and experiments/autoencoder/RESULTS.md: transformers on bounce with the settings and the compute of the demo, at three
# learning rates and with three seeds, and small autoencoders on bounce and on real clips. Call it again to go on where it
# stopped. Many hours on two CPU cores; a table of two transformers takes about one. An arm that several tables have is
# trained once.
#   launch/ablations.sh                    all tables
#   launch/ablations.sh blocks positions   those named, of: autoencoders blocks objective captions time modulation
#                                          positions patches
#   JOBS=8 launch/ablations.sh             eight runs at a time, on a GPU
tables=("$@")
known=(autoencoders blocks objective captions time modulation positions patches)
if [ $# = 0 ]; then tables=("${known[@]}"); fi
for table in "${tables[@]}"; do
  if [[ " ${known[*]} " != *" $table "* ]]; then
    echo "launch/ablations.sh: error: There is no table '$table': use one of ${known[*]}." >&2
    exit 2
  fi
done
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" dev
out=runs/ablations jobs=${JOBS:-2}

if [[ " ${tables[*]} " = *" autoencoders "* ]]; then
  if [ ! -e "$out/clips/done" ]; then
    python experiments/autoencoder/real_clips.py "$out/clips"
    touch "$out/clips/done"
  fi
  ablation=(vidflow ablate --config=experiments/autoencoder/ablation.py "--jobs=$jobs")
  "${ablation[@]}" "--workdir=$out/autoencoders_bounce"
  "${ablation[@]}" "--workdir=$out/autoencoders_real" --config.data.source=folder "--config.data.path=$out/clips/train" \
    "--config.data.test_path=$out/clips/test" --config.data.fps=25.0
fi
if [ "${tables[*]}" = autoencoders ]; then exit; fi

vidflow train --config=experiments/bounce/autoencoder.py --workdir="$out/autoencoder"
shared=("--config.autoencoder.run=$out/autoencoder")
vidflow encode --config=experiments/bounce/text_to_video.py "${shared[@]}" "--out=$out/latents"
for table in "${tables[@]}"; do
  if [ "$table" = autoencoders ]; then continue; fi
  flags=("${shared[@]}" --config.data.source=cache "--config.data.path=$out/latents")
  if [ "$table" = captions ]; then flags=("${shared[@]}"); fi  # a cache has the captions of its encode
  vidflow ablate "--config=experiments/ablations/$table.py" "--workdir=$out/$table" "--runs=$out/runs" "--jobs=$jobs" \
    "${flags[@]}"
done
