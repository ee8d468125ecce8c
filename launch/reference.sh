#!/usr/bin/env bash
# Trains the reference model that ships with the package, from nothing, and puts it into vidflow/assets/bounce.
# Hours on two CPU cores; experiments/bounce/RESULTS.md says what it reached.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

vidflow train --config=experiments/bounce/autoencoder.py:reference --workdir=runs/reference_autoencoder
vidflow train --config=experiments/bounce/text_to_video.py:reference --workdir=runs/reference \
  --config.autoencoder.run=runs/reference_autoencoder
vidflow evaluate --run=runs/reference
python - <<'PYTHON'
from pathlib import Path

from vidflow.tasks.shipping import ship

ship(Path("runs/reference"), Path("vidflow/assets/bounce"), recipe="launch/reference.sh")
PYTHON
