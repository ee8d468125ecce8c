#!/usr/bin/env bash
# Trains, scores and compares models of signs that are told their prompt by each subset of three small encoders, on short
# and on long captions, with three seeds, and beside them one whose encoder of bytes is trained along. Call it again to
# go on where it stopped. Many hours on two CPU cores.
#   launch/text_encoders.sh          both tables
#   launch/text_encoders.sh short    that of short captions, or of long ones
#   JOBS=8 launch/text_encoders.sh   eight runs at a time, on a GPU
kinds=("$@")
if [ $# = 0 ]; then kinds=(short long); fi
for kind in "${kinds[@]}"; do
  if [[ " short long " != *" $kind "* ]]; then
    echo "launch/text_encoders.sh: error: There is no table '$kind': use short or long." >&2
    exit 2
  fi
done
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" dev

out=runs/text_encoders experiment=experiments/text_encoders/signs.py
if [ ! -e runs/towers/done ]; then
  python experiments/text_encoders/towers.py runs/towers
  touch runs/towers/done
fi
vidflow train "--config=$experiment:autoencoder" "--workdir=$out/autoencoder"
for kind in "${kinds[@]}"; do
  shared=("--config=$experiment:captions=$kind" "--config.autoencoder.run=$out/autoencoder")
  shared+=("--config.text.cache=$out/text_$kind")  # the budgets of tokens differ
  vidflow encode "${shared[@]}" "--out=$out/latents_$kind"
  vidflow ablate "${shared[@]}" "--workdir=$out/$kind" "--jobs=${JOBS:-2}" \
    --config.data.source=cache "--config.data.path=$out/latents_$kind"
  for seed in 0 1 2; do
    run="$out/bytes_$kind/$seed"
    vidflow train "--config=$experiment:captions=$kind,bytes" "--config.autoencoder.run=$out/autoencoder" \
      "--workdir=$run" "--config.seed=$seed" --config.optimizer.learning_rate=0.01 \
      --config.data.source=cache "--config.data.path=$out/latents_$kind"
    [ "$run/evaluation.json" -nt "$run/weights.safetensors" ] || vidflow evaluate "--run=$run" --prompts=192 --seeds=1
  done
done
