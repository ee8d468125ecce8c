#!/usr/bin/env bash
# Movie Gen's table 8a untangled: trains and scores every row of experiments/moviegen/RESULTS.md, {linear, diffusion}
# paths x {uniform, logit-normal} times x {velocity, noise} targets, three seeds each, on bounce with the demo's settings.
# Call it again to go on where it stopped. Hours on two CPU cores.
#   launch/objectives.sh [STEPS]    other than the 1,200 of the demo for a try
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

steps=${1:-1200}
out=runs/objectives
experiment=experiments/bounce/text_to_video.py
vidflow train --config=experiments/bounce/autoencoder.py --workdir="$out/autoencoder"
vidflow encode "--config=$experiment" "--config.autoencoder.run=$out/autoencoder" "--out=$out/latents"

# On the diffusion path of constant variance the velocity is infinite at its end; its bounded form is the rotation
# (v-prediction), which is what the paper's diffusion arm learns. Noise says nothing where all is noise: sampling starts
# a little later.
for seed in 0 1 2; do
  for path in linear variance_preserving:zero_terminal_snr=true; do
    for times in uniform logit_normal; do
      for target in velocity noise; do
        run=$out/${path%%:*}/$times/$target/$seed
        if [ -e "$run/evaluation.json" ]; then continue; fi
        said=$target
        if [ "$path $target" = "variance_preserving:zero_terminal_snr=true velocity" ]; then said=rotation; fi
        vidflow train "--config=$experiment" "--workdir=$run" "--config.autoencoder.run=$out/autoencoder" \
          --config.data.source=cache "--config.data.path=$out/latents" "--config.seed=$seed" "--config.steps=$steps" \
          "--config.flow.path=$path" "--config.flow.times=$times" "--config.flow.target=$said" \
          --config.sampling.start=0.01
        vidflow evaluate "--run=$run" --clips=256
      done
    done
  done
done
python experiments/moviegen/objectives_table.py "$out"
