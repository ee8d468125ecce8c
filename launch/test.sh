#!/usr/bin/env bash
# Makes the environment with the dev extra and runs the default test suite; further arguments go to pytest
# (launch/test.sh -m slow runs the slow tests).
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" dev
python -m pytest "$@"
