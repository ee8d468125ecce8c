#!/usr/bin/env bash
# From nothing to a generated video: installs into .venv, trains an autoencoder and a text-to-video model on the bounce
# world, samples and scores held-out prompts, and writes runs/demo/report.html. Run it again to resume or to finish at
# once. About five minutes on two CPU cores.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

echo "1/4  Training the autoencoder (runs/demo_autoencoder)"
vidflow train --config=experiments/bounce/autoencoder.py --workdir=runs/demo_autoencoder
echo "2/4  Training the text-to-video model (runs/demo)"
vidflow train --config=experiments/bounce/text_to_video.py --workdir=runs/demo \
  --config.autoencoder.run=runs/demo_autoencoder
echo "3/4  Sampling and scoring held-out prompts"
[ runs/demo/evaluation.json -nt runs/demo/weights.safetensors ] || vidflow evaluate --run=runs/demo
echo "4/4  Writing the report"
vidflow report --run=runs/demo --reference=vidflow/assets/bounce/samples
echo
echo "Open $(pwd)/runs/demo/report.html"
