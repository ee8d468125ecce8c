#!/usr/bin/env bash
# Trains and scores every row of experiments/autoencoder/RESULTS.md: seven small autoencoders, three seeds each, on bounce
# and on real clips (experiments/autoencoder/real_clips.py). Call it again to go on where it stopped. Hours on two CPU cores.
#   launch/autoencoder_ablation.sh [STEPS]    fewer than the 600 of the experiment for a try
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" dev

steps=${1:-600}
out=runs/autoencoder_ablation
if [ ! -e "$out/clips/done" ]; then
  python experiments/autoencoder/real_clips.py "$out/clips"
  touch "$out/clips/done"
fi
real=(--config.data.source=folder "--config.data.path=$out/clips/train" "--config.data.test_path=$out/clips/test")
real+=(--config.data.fps=25.0)

for seed in 0 1 2; do
  for arm in 2.5d 3d causal outliers consistency channels=4 channels=16; do
    for data in bounce real; do
      run=$out/$data/$arm/$seed
      if [ -e "$run/evaluation.json" ]; then continue; fi
      flags=()
      if [ "$data" = real ]; then flags=("${real[@]}"); fi
      vidflow train "--config=experiments/autoencoder/ablation.py:$arm" "--workdir=$run" \
        "--config.seed=$seed" "--config.steps=$steps" "${flags[@]}"
      vidflow evaluate "--run=$run" --clips=384
    done
  done
done
python experiments/autoencoder/table.py "$out"
