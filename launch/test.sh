#!/usr/bin/env bash
# Makes the environment with what tests need and runs the default test suite, a worker to each core but four at most (a
# worker takes up to 4 GiB); further arguments go to pytest: launch/test.sh -m slow runs the slow tests, launch/test.sh
# -n 0 everything in one process.
export GLIBC_TUNABLES=${GLIBC_TUNABLES-glibc.malloc.hugetlb=1}  # as verbs have it: vidflow/startup.py
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" dev
python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder "$@"
