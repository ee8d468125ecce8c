"""The Cloud TPU scripts: what they print, that they run just that, and what happens on the hosts; no network, no TPU.

A small git checkout with the scripts stands in for this one. On PATH are stand-ins for gcloud, xpk and kubectl, and for
the few tools that the scripts run on this machine; each records its words. In the tests of the hosts, gcloud runs the
commands in one folder per host, with stand-ins for the Python and the vidflow that are there.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from vidflow import config as configs

LAUNCH = Path(__file__).parents[2] / "launch"
SUBCOMMANDS = {
    "tpu_vm": ("create", "install", "run", "logs", "status", "fetch", "stop", "delete"),
    "xpk": ("create", "run", "list", "logs", "inspect", "stop", "delete"),
}
FLAGS = {
    "tpu_vm": ("--name=my-tpu", "--zone=us-east5-a", "--project=my-project"),
    "xpk": ("--cluster=my-cluster", "--zone=us-east5-a", "--project=my-project"),
}
# Words that a shell, ssh or YAML could get wrong.
AWKWARD = ("vidflow", "sample", 'it\'s a "red" star;  two  spaces, $HOME `x` \\ * ~ é', "", "--out=a b", "&&", "a=1")
RECORD = 'printf "%s\\0" "${0##*/}" "$@" >> "$RECORD"; echo >> "$RECORD"\n'


def programs(folder: Path, **bodies: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, body in bodies.items():
        (folder / name).write_text(f"#!{shutil.which('bash')}\n{body}")
        (folder / name).chmod(0o755)
    return folder


def links(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).symlink_to(shutil.which(name))
    return folder


class Place:
    """A checkout with the scripts, and a PATH on which every command is recorded."""

    def __init__(self, root: Path):
        self.root = root / "checkout"
        shutil.copytree(LAUNCH, self.root / "launch")
        (self.root / "requirements.txt").write_text("jax\n")
        (self.root / ".gitignore").write_text("build/\n")
        git = ["git", "-C", str(self.root), "-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"]
        for words in (["init", "--quiet", "--template="], ["add", "."], ["commit", "--quiet", "-m", "one"]):
            subprocess.run([*git, *words], check=True)
        self.commit = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()
        self.tools = links(root / "tools", "bash", "dirname", "basename", "cat")
        real = {name: f'{RECORD}exec {shutil.which(name)} "$@"\n' for name in ("mkdir", "rm", "tar")}
        # Only `archive` changes anything; the questions asked of git are the same in a dry run.
        real["git"] = f'[[ " $* " != *" archive "* ]] || {{ {RECORD}}}\nexec {shutil.which("git")} "$@"\n'
        programs(self.tools, **real)
        self.cloud = programs(root / "cloud", gcloud=RECORD, xpk=RECORD, kubectl=RECORD)

    def enter(self, folder: Path) -> "Place":
        """Forgets what earlier tests did."""
        self.folder, self.record = folder, folder / "record"
        self.path = [self.tools, self.cloud]
        shutil.rmtree(self.root / "build", ignore_errors=True)
        return self

    def __call__(self, script: str, *words: str, **variables: str) -> subprocess.CompletedProcess:
        path = ":".join(map(str, self.path))
        env = {"PATH": path, "HOME": str(self.folder), "RECORD": str(self.record), **variables}
        command = ["bash", str(self.root / "launch" / f"{script}.sh"), *words]
        # Files, not pipes: what a script starts on a stand-in host may outlive it.
        with open(self.folder / "out", "w+") as out, open(self.folder / "err", "w+") as err:
            done = subprocess.run(command, env=env, cwd=self.folder, stdout=out, stderr=err, timeout=60)
            out.seek(0), err.seek(0)
            return subprocess.CompletedProcess(command, done.returncode, out.read(), err.read())

    def recorded(self) -> list[list[str]]:
        text = self.record.read_text() if self.record.exists() else ""
        return [call.split("\0") for call in text.split("\0\n")[:-1]]

    def dry_run(self, script: str, subcommand: str, *words: str, **variables: str) -> list[str]:
        """The lines that a dry run prints; nothing may have been run."""
        result = self(script, subcommand, "--dry-run", *words, **variables)
        assert result.returncode == 0, result.stderr
        assert self.recorded() == [] and not (self.root / "build").exists()
        return result.stdout.splitlines()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return Place(tmp_path_factory.mktemp("launch"))


@pytest.fixture
def place(checkout, tmp_path):
    return checkout.enter(tmp_path)


# Script and words, then the commands that they come to; `spelt_out` says what stands in braces.
CASES = """
tpu_vm create --type=v5p-16
  {vm} create my-tpu {at} --accelerator-type=v5p-16 --version=v2-alpha-tpuv5
tpu_vm create --type=v5litepod-16 --spot --version=other -- '--labels=a=b c'
  {vm} create my-tpu {at} --accelerator-type=v5litepod-16 --version=other --spot '--labels=a=b c'
tpu_vm create --topology=v4:2x2x4
  {vm} create my-tpu {at} --type=v4 --topology=2x2x4 --version=tpu-ubuntu2204-base
tpu_vm create --topology=v5p:2x2x4
  gcloud alpha compute tpus tpu-vm create my-tpu {at} --type=v5p --topology=2x2x4 --version=v2-alpha-tpuv5
tpu_vm create --topology=v5e:4x4 --queued --spot
  gcloud alpha compute tpus queued-resources create my-tpu {at} --node-id=my-tpu --type=v5litepod --topology=4x4 \
    --runtime-version=v2-alpha-tpuv5-lite --spot
tpu_vm create --type v6e-256 --slices 3
  {queue} create my-tpu {at} --node-count=3 --node-prefix=my-tpu --accelerator-type=v6e-256 \
    --runtime-version=v2-alpha-tpuv6e
tpu_vm install
  mkdir -p {root}/build
  git -C {root} archive --format=tar.gz --output={root}/build/vidflow-my-tpu.tar.gz HEAD
  {vm} scp {root}/build/vidflow-my-tpu.tar.gz my-tpu:vidflow.tar.gz {at} --worker=all
  {vm} ssh my-tpu --command='rm -rf vidflow/incoming && mkdir -p vidflow/incoming && \
tar -xzf vidflow.tar.gz -C vidflow/incoming && bash vidflow/incoming/launch/tpu_vm.sh on-host install {commit}' \
    {at} --worker=all
tpu_vm run -- vidflow train --workdir=/mnt/b/runs/a --distributed
  {vm} ssh my-tpu --command='{host} check' {at} --worker=all
  {vm} ssh my-tpu --command='{host} start vidflow train --workdir=/mnt/b/runs/a --distributed' {at} --worker=all
tpu_vm run --slices=2 --internal-ip -- vidflow train
  {queue} ssh my-tpu --command='{host} check' {at} --node=all --worker=all --internal-ip
  {queue} ssh my-tpu --command='{host} start vidflow train' {at} --node=all --worker=all --internal-ip
tpu_vm logs
  {vm} ssh my-tpu --command='{host} logs' {at} --worker=0
tpu_vm logs --slices=2 --slice=1 --worker=3
  {queue} ssh my-tpu --command='{host} logs' {at} --node=1 --worker=3
tpu_vm status
  {vm} describe my-tpu {at} '--format=value(state,health)'
  {vm} ssh my-tpu --command='{host} status' {at} --worker=all
tpu_vm status --queued
  {queue} describe my-tpu {at} '--format=value(state.state)'
  {vm} ssh my-tpu --command='{host} status' {at} --worker=all
tpu_vm fetch gs://b/runs/a/ --out=here -- '--exclude=checkpoints/.*'
  mkdir -p here/a
  gcloud storage rsync --recursive gs://b/runs/a here/a --project=my-project '--exclude=checkpoints/.*'
tpu_vm fetch runs/a
  mkdir -p runs
  {vm} scp --recurse my-tpu:vidflow/source/runs/a runs {at} --worker=0
tpu_vm fetch /data/a --slices=2
  mkdir -p runs
  {queue} scp --recurse my-tpu:/data/a runs {at} --node=0 --worker=0
tpu_vm stop
  {vm} ssh my-tpu --command='{host} stop' {at} --worker=all
tpu_vm stop --force
  {vm} ssh my-tpu --command='{host} stop KILL' {at} --worker=all
tpu_vm delete -- --quiet
  {vm} delete my-tpu {at} --quiet
tpu_vm delete --queued
  {queue} delete my-tpu --force {at}
tpu_vm delete --slices=2
  {queue} delete my-tpu --force {at}
xpk create --topology=v5e:4x8 --slices=2 -- --cpu-limit=112
  xpk cluster create {on} --tpu-type=v5litepod-4x8 --num-slices=2 --on-demand --cpu-limit=112
xpk create --type=v4-8 --reservation=r
  xpk cluster create {on} --tpu-type=v4-8 --num-slices=1 --reservation=r
xpk create --type=v4-8 --spot
  xpk cluster create {on} --tpu-type=v4-8 --num-slices=1 --spot
xpk run --workload=w --type=v5p-16 --restarts=9 -- vidflow train
  rm -rf {root}/build/xpk-w
  mkdir -p {root}/build/xpk-w
  git -C {root} archive --format=tar --output={root}/build/xpk-w.tar HEAD
  tar -xf {root}/build/xpk-w.tar -C {root}/build/xpk-w
  xpk workload create {on} --workload=w --tpu-type=v5p-16 --num-slices=1 --max-restarts=9 \
    --base-docker-image=python:3.12 --script-dir={root}/build/xpk-w --env=VIDFLOW_COMMIT={commit} \
    --command="pip install --quiet -r requirements.txt -e '.[tpu]' && exec vidflow train"
xpk run --workload=w --topology=v6e:4x4 --image=gcr.io/p/i --slices=2 -- vidflow train
  xpk workload create {on} --workload=w --tpu-type=v6e-4x4 --num-slices=2 --max-restarts=0 --docker-image=gcr.io/p/i \
    --command='exec vidflow train'
xpk list
  xpk workload list {on}
xpk logs --workload=w --worker=2
  gcloud container clusters get-credentials my-cluster --location=us-east5 --project=my-project
  kubectl logs --namespace=default --selector=jobset.sigs.k8s.io/jobset-name=w,jobset.sigs.k8s.io/job-index=0,\
batch.kubernetes.io/job-completion-index=2 --tail=100 --follow
xpk inspect --workload=w
  xpk inspector {on} --workload=w --print-to-terminal
xpk stop --workload=w
  xpk workload delete {on} --workload=w
xpk delete
  xpk cluster delete {on}
"""


def cases():
    texts = [case.splitlines() for case in re.findall(r"^\S.*\n(?:  .*\n)+", CASES, re.M)]
    return [pytest.param(first, commands, id=first) for first, *commands in texts]


def spelt_out(place: Place, command: str) -> list[str]:
    return shlex.split(
        command.format(
            vm="gcloud compute tpus tpu-vm",
            queue="gcloud compute tpus queued-resources",
            at=" ".join(FLAGS["tpu_vm"][1:]),
            on=" ".join(FLAGS["xpk"]),
            host="bash vidflow/source/launch/tpu_vm.sh on-host",
            root=place.root,
            commit=place.commit,
        )
    )


def call(first: str) -> list[str]:
    """A case's first line as script, subcommand, flags, further words."""
    script, subcommand, *words = shlex.split(first)
    return [script, subcommand, *FLAGS[script], *words]


@pytest.mark.parametrize(("first", "commands"), cases())
def test_a_dry_run_prints_what_a_run_then_executes(place, first, commands):
    expected = [spelt_out(place, command) for command in commands]
    assert [shlex.split(line) for line in place.dry_run(*call(first))] == expected
    result = place(*call(first))
    assert result.returncode == 0, result.stderr
    assert place.recorded() == expected


def test_every_subcommand_has_a_case():
    seen = {tuple(case.values[0].split()[:2]) for case in cases()}
    assert seen == {(script, name) for script, names in SUBCOMMANDS.items() for name in names}


def test_awkward_words_arrive_as_they_were_and_the_lines_can_be_pasted(place):
    lines = place.dry_run("tpu_vm", "run", *FLAGS["tpu_vm"], "--", *AWKWARD)
    assert len(lines) == 2
    start = next(word for word in shlex.split(lines[1]) if word.startswith("--command="))
    assert shlex.split(start)[-len(AWKWARD) - 1 :] == ["start", *AWKWARD]
    pasted = [shutil.which("bash"), "-c", "\n".join(lines)]
    subprocess.run(pasted, env={"PATH": str(place.cloud), "RECORD": str(place.record)}, check=True)
    assert place.recorded() == [shlex.split(line) for line in lines]


def test_the_environment_stands_in_for_flags(place):
    named = {"TPU_NAME": "my-tpu", "TPU_CLUSTER": "my-cluster", "TPU_ZONE": "us-east5-a", "TPU_PROJECT": "my-project"}
    for first in ("tpu_vm stop", "xpk delete"):
        script, subcommand, *_ = call(first)
        assert place.dry_run(script, subcommand, **named) == place.dry_run(*call(first))
    assert place.dry_run("tpu_vm", "stop", TPU_SLICES="2", **named) == place.dry_run(*call("tpu_vm stop --slices=2"))
    del named["TPU_PROJECT"]
    assert "project" not in "".join(place.dry_run("tpu_vm", "stop", **named))


BAD_INPUT = [
    ("tpu_vm creat", r"Subcommand 'creat' is unknown: use one of create, install, .*, delete\."),
    ("tpu_vm create --type=v5p-16 --spott", r"Flag --spott is unknown to create, which takes --name .* --spot: see"),
    ("tpu_vm create --type=v5p-16 --spot=yes", r"Flag --spot takes no value: write --spot alone, not --spot=yes\."),
    ("tpu_vm create --type", r"Flag --type needs a value: write --type=VALUE\."),
    ("tpu_vm create --type --spot", r"Flag --type needs a value"),
    ("tpu_vm create --type=", r"Flag --type needs a value"),
    ("tpu_vm create", r"create does not know which TPU: give --type=v5p-16 or --topology=v5p:2x2x2\."),
    ("tpu_vm create --type=v5p-16 --topology=v5p:2x2x2", r"--type and --topology both say which TPU: give one"),
    (
        "tpu_vm create --type=v5e-16",
        r"Unknown TPU type in --type=v5e-16: use one of v4-CORES, v5litepod-CHIPS, v5p-CORES, v6e-CHIPS\.",
    ),
    (
        "tpu_vm create --topology=v9:2x2",
        r"Unknown TPU generation 'v9' in --topology=v9:2x2: use one of v4, v5e, v5p, v6e\.",
    ),
    ("tpu_vm create --topology=v5p:4x4", r"--topology=v5p:4x4 is not of the form v5p:AxBxC, chips along each side"),
    ("tpu_vm create --topology=v6e", r"--topology=v6e is not of the form v6e:AxB,"),
    ("tpu_vm create --type=v5p-16 mine", r"create does not take 'mine': see launch/tpu_vm.sh create --help\."),
    ("tpu_vm create --type=v5p-16 --slices=0", r"--slices=0 is not a number of at least 1\."),
    ("tpu_vm stop --name=My_TPU", r"--name=My_TPU is not a name that Google takes: use lower-case"),
    ("tpu_vm stop -- now", r"stop takes nothing after --, and there is 'now'\."),
    ("tpu_vm run", r"run needs the command after --: launch/tpu_vm.sh run -- vidflow train"),
    ("tpu_vm run vidflow train", r"run needs the command after --"),
    ("tpu_vm fetch", r"fetch needs one run folder: launch/tpu_vm.sh fetch gs://BUCKET/RUN\."),
    ("tpu_vm logs --worker=one", r"--worker=one is not a number of at least 0\."),
    ("tpu_vm logs --slice=1", r"--slice=1 is not one of 1: slices count from 0"),
    ("xpk stop", r"stop does not know the workload: give --workload=VALUE\."),
    ("xpk run --workload=w --type=v5p-16 --image=i --base-image=j -- x", r"--image is run as it is and --base-image"),
    ("xpk create --type=v5p-16 --spot --reservation=r", r"--spot and --reservation are two capacities: give one"),
    ("xpk list -- x", r"list takes nothing after --"),
]


@pytest.mark.parametrize(("first", "message"), BAD_INPUT, ids=[first for first, _ in BAD_INPUT])
def test_bad_input_is_one_sentence_that_says_what_to_do(place, first, message):
    result = place(*call(first))
    assert result.returncode == 2
    assert re.match(rf"launch/(tpu_vm|xpk)\.sh: error: {message}", result.stderr), result.stderr
    assert result.stderr.count("\n") == 1 and result.stdout == "" and place.recorded() == []


def test_a_missing_name_or_zone_says_which_flag_or_variable(place):
    assert "stop does not know the name: give --name=VALUE or export TPU_NAME=VALUE." in place("tpu_vm", "stop").stderr
    result = place("tpu_vm", "stop", "--name=a")
    assert "stop does not know the zone: give --zone=VALUE or export TPU_ZONE=VALUE." in result.stderr
    assert "give --cluster=VALUE or export TPU_CLUSTER=VALUE." in place("xpk", "list").stderr


@pytest.mark.parametrize(("first", "tool"), [("tpu_vm stop", "gcloud"), ("xpk list", "xpk")])
def test_a_tool_that_is_not_installed_is_named_and_a_dry_run_needs_none(place, first, tool):
    place.path = [place.tools]
    result = place(*call(first))
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert re.search(rf"error: {tool} is not installed: install ", result.stderr)
    assert place.dry_run(*call(first))


SEVERAL = ["tpu_vm install", "tpu_vm run -- vidflow train", "tpu_vm status", "xpk logs --workload=w"]


@pytest.mark.parametrize("first", SEVERAL)
def test_a_command_that_fails_ends_the_script_with_its_exit_code(place, first):
    commands = [shlex.split(line) for line in place.dry_run(*call(first))]
    cloud = [index for index, words in enumerate(commands) if words[0] in ("gcloud", "kubectl")]
    for attempt, last in enumerate(cloud):
        place.record.unlink(missing_ok=True)
        count = f'[ "$(grep -caE "^(gcloud|kubectl)" "$RECORD")" -le {attempt} ] || exit 9\n'
        failing = programs(place.folder / f"failing{attempt}", gcloud=RECORD + count, kubectl=RECORD + count)
        place.path = [failing, links(place.folder / f"grep{attempt}", "grep"), place.tools]
        result = place(*call(first))
        assert result.returncode == 9
        assert place.recorded() == commands[: last + 1]
        assert ("some hosts may have started" in result.stderr) == (first.startswith("tpu_vm run") and attempt == 1)


@pytest.mark.parametrize("script", SUBCOMMANDS)
def test_help_explains_every_subcommand_with_examples_that_work(place, script):
    overview = place(script, "--help")
    assert overview.returncode == 0 and "|".join(SUBCOMMANDS[script]) in overview.stdout
    assert place(script).stdout == overview.stdout
    for subcommand in (None, *SUBCOMMANDS[script]):
        text = overview.stdout if subcommand is None else place(script, subcommand, "--help").stdout
        examples = re.findall(r"^  (launch/(\w+)\.sh .*)$", text.replace("\\\n", ""), re.M)
        assert examples
        for line, which in examples:
            _, *words = shlex.split(line)
            assert subcommand in (None, words[0])
            if subcommand or which == script:
                place.dry_run(which, *words)


def test_changes_that_are_not_sent_are_mentioned(place):
    (place.root / "new.py").touch()
    try:
        assert "changes that are not committed are not sent" in place(*call("tpu_vm install")).stderr
    finally:
        (place.root / "new.py").unlink()
    assert "not committed" not in place(*call("tpu_vm install")).stderr


def test_an_environment_whose_making_was_interrupted_is_made_whole(tmp_path):
    """venv has put its Python there and no pip."""
    shutil.copytree(LAUNCH, tmp_path / "launch")
    for name in ("setup.py", "requirements.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / ".venv").mkdir()
    pip = '"${0%python}pip"'
    programs(tmp_path, stand_in="exit 0\n")
    programs(tmp_path / ".venv" / "bin", python=f'[ "$2" = ensurepip ] && cp "$0" {pip} && echo exit 0 > {pip}\n')
    (tmp_path / ".venv" / "bin" / "activate").write_text("")
    environment = os.environ | {"PYTHON": str(tmp_path / "stand_in")}
    done = subprocess.run(["bash", tmp_path / "launch" / "environment.sh"], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / ".venv" / "installed-run").exists()


@pytest.mark.parametrize(
    ("script", "tables"), [("ablations.sh", ["blocks", "position"]), ("text_encoders.sh", ["short", "medium"])]
)
def test_a_table_that_is_none_is_refused_before_anything_is_trained(script, tables, tmp_path):
    shutil.copytree(LAUNCH, tmp_path / "launch")
    (tmp_path / "launch" / "environment.sh").write_text('vidflow() { echo "$@"; }\n')
    done = subprocess.run(["bash", tmp_path / "launch" / script, *tables], capture_output=True, text=True)
    assert done.returncode == 2 and f"There is no table '{tables[1]}'" in done.stderr and not done.stdout


def test_a_budget_that_the_grid_has_not_is_refused_before_anything_is_made(tmp_path):
    shutil.copytree(LAUNCH, tmp_path / "launch")
    stand_in = 'vidflow() { echo "$@"; [[ "$*" != *flops=2e14* ]]; }\n'
    (tmp_path / "launch" / "environment.sh").write_text(stand_in)
    command = ["bash", "-e", tmp_path / "launch" / "scaling.sh", "2e14"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode and "encode" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "budgets", "grids"),
    [
        ((), ("2e+12", "7e+12", "2e+13", "7e+13"), ["in_context", *["isoflop"] * 4]),
        (("2e+14",), ("2e+14",), ["isoflop"]),
    ],
)
def test_the_scaling_study_is_one_command(tmp_path, arguments, budgets, grids):
    shutil.copytree(LAUNCH, tmp_path / "launch")
    (tmp_path / "launch" / "environment.sh").write_text('vidflow() { echo "$@"; }\n')
    done = subprocess.run(["bash", tmp_path / "launch" / "scaling.sh", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    sweeps = [line for line in lines if line.startswith("sweep")]
    assert [re.search(r"scaling/(\w+)\.py", line)[1] for line in sweeps] == grids
    assert tuple(re.findall(r"--only=flops=(\S+)", done.stdout)) == budgets
    fitted = [re.search(r"results=runs/(\w+)/", line)[1] for line in lines if line.startswith("fit")]
    assert fitted == [name for name in ("isoflop", "in_context") if name in grids for _ in range(2)]
    grid = configs.function(LAUNCH.parent / "experiments" / "scaling" / "isoflop.py", "sweep", "def sweep(add)")
    known = []
    grid(lambda values, arg: known.append(arg.rpartition("flops=")[2]))
    assert set(budgets) <= set(known)


@pytest.mark.parametrize("name", ["cloud.sh", "tpu_vm.sh", "xpk.sh"])
def test_the_scripts_are_well_formed(name):
    subprocess.run(["bash", "-n", LAUNCH / name], check=True)
    assert max(map(len, (LAUNCH / name).read_text().splitlines())) <= 120


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_shellcheck_finds_nothing():
    command = ["shellcheck", "--external-sources", f"--source-path={LAUNCH}", LAUNCH / "tpu_vm.sh", LAUNCH / "xpk.sh"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# ---------------------------------------------------------------------------------------------------------------------
# On the hosts.

GCLOUD = (
    RECORD
    + """
shopt -s nullglob
for word; do case $word in --command=*) command=${word#*=} ;; --worker=*) worker=${word#*=} ;; esac; done
code=0
for host in "$HOSTS"/*; do
  [ "${worker-}" = all ] || [ "${worker-}" = "${host##*/}" ] || continue
  case "$4 $5" in
    "ssh "*) (cd "$host" && HOME=$host PATH=$HOST_PATH exec bash -c "$command") || code=$? ;;
    "scp --recurse") cp -r "$host/${6#*:}" "$7" ;;
    "scp "*) cp "$5" "$host/${6#*:}" ;;
  esac
done
exit $code
"""
)
# What `python3` of a host does: it is recent unless $HOME/old exists, makes environments and installs nothing.
PYTHON = """
echo "$*" >> "$HOME/python"
case $* in
  -c*) [ ! -e "$HOME/old" ] ;;
  *venv*)
    mkdir -p venv/bin
    ln -sf "$(command -v python3)" venv/bin/python
    ln -sf "$(command -v fake-vidflow)" venv/bin/vidflow
    ;;
  *) [ ! -e "$HOME/broken" ] && { [ -f requirements.txt ] || [[ $* != *-e* ]]; } ;;
esac
"""
VIDFLOW = """
printf '%s\\0' "${0##*/}" "$@" > "$HOME/words"
echo "commit $VIDFLOW_COMMIT in ${PWD#"$HOME"/}"
case $1 in
  train) trap 'echo saved; exit 7' TERM ;;
  hang) trap '' TERM ;;
  short) sleep 0.5; echo the end; exit 3 ;;
  *) exit 0 ;;
esac
touch "$HOME/ready"
for _ in {1..600}; do sleep 0.05; done  # Not for ever, should a test fail to end it.
"""
TOOLS = "bash basename cat date dirname env flock gzip ln mkdir mv rm setsid sleep tail tar touch".split()


class Hosts:
    """Two hosts behind gcloud."""

    def __init__(self, place: Place, folder: Path):
        self.place, self.folders = place, [folder / "hosts" / str(n) for n in (0, 1)]
        for host in self.folders:
            host.mkdir(parents=True)
        self.bin = links(folder / "host_bin", *TOOLS)
        programs(self.bin, python3=PYTHON, **{"fake-vidflow": VIDFLOW, "hostname": 'echo "host-${HOME##*/}"\n'})
        # Behind the recorders: only the stand-in gcloud needs cp.
        place.path = [programs(folder / "gcloud", gcloud=GCLOUD), place.tools, links(folder / "cp", "cp")]

    def __call__(self, first: str, *words: str) -> subprocess.CompletedProcess:
        variables = {"HOSTS": str(self.folders[0].parent), "HOST_PATH": str(self.bin)}
        return self.place(*call(f"tpu_vm {first}"), *words, **variables)

    def ok(self, first: str, *words: str) -> str:
        result = self(first, *words)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def refused(self, first: str, code: int = 2) -> str:
        result = self(first)
        assert result.returncode == code and result.stdout.count("started") == 0
        return result.stderr

    def wait(self, name: str) -> None:
        """Until every host has the file."""
        end = time.monotonic() + 20
        while not all((host / name).exists() for host in self.folders):
            assert time.monotonic() < end, f"no {name}"
            time.sleep(0.02)

    def texts(self, name: str) -> list[str]:
        return [(host / name).read_text() for host in self.folders]

    def clean_up(self) -> None:
        for pgid in (host / "vidflow/run/pgid" for host in self.folders):
            try:
                os.killpg(int(pgid.read_text()), signal.SIGKILL)
            except (OSError, ValueError):
                pass


@pytest.fixture
def hosts(place, tmp_path):
    hosts = Hosts(place, tmp_path)
    yield hosts
    hosts.clean_up()


def test_a_host_whose_install_failed_has_nothing_installed(hosts):
    hosts.ok("install")
    for host in hosts.folders:
        (host / "broken").touch()
    assert hosts("install").returncode
    assert "vidflow is not installed on host-0: use install first" in hosts.refused("run -- vidflow train")


def test_install_sends_head_keeps_the_runs_and_installs_the_pinned_versions(hosts):
    assert "vidflow is not installed on every host: use install first" in hosts.refused("run -- vidflow train", 127)
    assert hosts.ok("install").count(f"vidflow {hosts.place.commit} is installed") == 2
    for host in hosts.folders:
        assert (host / "vidflow/source/launch/tpu_vm.sh").exists()
        (host / "vidflow/source/runs/a").mkdir()
        (host / "vidflow/source/runs/a/config.json").write_text("{}")
        (host / "vidflow/source/stale.py").touch()
    hosts.ok("install")
    for host, text in zip(hosts.folders, hosts.texts("python"), strict=True):
        assert (host / "vidflow/source/runs/a/config.json").exists()
        assert not (host / "vidflow/source/stale.py").exists()
        assert text.count("-m venv --clear venv") == 1
        pip = "-m pip install --quiet --disable-pip-version-check -r requirements.txt -e .[tpu]"
        assert text.splitlines().count(pip) == 2
    hosts.ok("fetch runs/a --out=fetched")
    assert (hosts.place.folder / "fetched/a/config.json").exists()


def test_uv_brings_python_where_it_is_too_old(hosts):
    for host in hosts.folders:
        (host / "old").touch()
    hosts.ok("install")
    for text in hosts.texts("python"):
        assert "-m pip install --quiet --user --upgrade uv" in text
        assert "-m uv venv --quiet --clear --seed --python 3.12 venv" in text


def test_the_command_runs_on_every_host_with_its_words_and_its_end_is_known(hosts):
    hosts.ok("install")
    assert hosts.ok("status").count("nothing has run") == 2
    assert "Nothing has run on host-0 yet" in hosts.refused("logs")
    assert hosts.ok("run --", *AWKWARD).count(": started") == 2
    hosts.wait("vidflow/run/exit_code")
    assert hosts.texts("words") == ["\0".join(AWKWARD) + "\0"] * 2
    status = hosts.ok("status")
    for host in ("host-0", "host-1"):
        assert f"{host}: ended with exit code 0: {shlex.join(AWKWARD[:2])} " in status
    log = hosts.ok("logs --worker=1")
    assert f"commit {hosts.place.commit} in vidflow/source" in log and re.match(r"=== 2\d{3}-", log)
    hosts.ok("run -- no-such-command")
    hosts.wait("vidflow/run/exit_code")
    assert hosts.ok("status").count("ended with exit code 127: no-such-command") == 2


def test_one_run_at_a_time_and_stop_ends_it_with_sigterm(hosts):
    hosts.ok("install")
    hosts.ok("run -- vidflow train")
    hosts.wait("ready")
    assert hosts.ok("status").count("running: vidflow train") == 2
    for first in ("run -- vidflow sample", "install"):
        message = hosts.refused(first)
        assert "A run is going on host-0 (vidflow train): follow it with logs or end it with stop." in message
        assert "host-1" in message
    assert hosts.texts("words") == ["vidflow\0train\0"] * 2
    assert hosts.ok("stop").count("ended with exit code 7: vidflow train") == 2
    assert [log.count("saved") for log in hosts.texts("vidflow/run/log")] == [1, 1]
    assert hosts.ok("stop").count("ended with exit code 7") == 2
    hosts.ok("run -- vidflow sample")


def test_logs_follow_a_run_to_its_end(hosts):
    hosts.ok("install")
    hosts.ok("run -- vidflow short")
    assert "the end" in hosts.ok("logs")
    hosts.wait("vidflow/run/exit_code")
    assert hosts.texts("vidflow/run/exit_code") == ["3\n"] * 2


def test_a_run_that_ignores_sigterm_is_ended_by_force(hosts):
    hosts.ok("install")
    for host in hosts.folders:
        script = host / "vidflow/source/launch/tpu_vm.sh"
        script.write_text(re.sub(r"^WAIT=\d+", "WAIT=0.2", script.read_text(), flags=re.M))
    hosts.ok("run -- vidflow sample")
    hosts.wait("vidflow/run/exit_code")  # Which the next run must not inherit.
    hosts.ok("run -- vidflow hang")
    hosts.wait("ready")
    assert "on host-1 has not ended after 0.2 seconds: use stop again, or stop --force." in hosts.refused("stop")
    assert hosts.ok("status").count("running") == 2
    assert hosts.ok("stop --force").count("ended without an exit code: vidflow hang") == 2
