"""What several processes read and gather, on meshes where several of them hold the same rows too."""

import json

import pytest

from tests.processes.cluster import DEVICES, together
from tests.processes.pieces import BATCH, BATCHES, MESHES


@pytest.mark.parametrize("processes", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_a_process_reads_the_rows_that_its_devices_hold_and_the_first_gathers(processes):
    for process, output in enumerate(together(processes, "tests.processes.pieces")):
        lines = [json.loads(line.partition(" ")[2]) for line in output.splitlines() if line.startswith("found ")]
        share = DEVICES // processes
        for (data, fsdp, sequence, tensor), found in zip(MESHES, lines, strict=True):
            groups = {device // (sequence * tensor) for device in range(process * share, (process + 1) * share)}
            size = BATCH // (data * fsdp)
            rows = [group * size + row for group in sorted(groups) for row in range(size)]
            assert found["read"] == rows
            assert found["held"] == [step * BATCH + row for step in range(BATCHES) for row in rows]
            assert found["gathered"] is (True if process == 0 else None)
