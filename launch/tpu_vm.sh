#!/usr/bin/env bash
# Runs one vidflow command on every host of a Cloud TPU slice: makes the slice, installs this checkout on it, starts,
# follows and ends the run, brings the results back. launch/tpu_vm.sh --help explains it.
source "$(dirname "${BASH_SOURCE[0]}")/cloud.sh"

COMMANDS="create install run logs status fetch stop delete"
WAIT=120  # Seconds that `stop` waits for a run to end: it may be writing a checkpoint.

help_text() {
  case ${1:-} in
    create) cat << 'TEXT' ;;
launch/tpu_vm.sh create: make a TPU VM.

  launch/tpu_vm.sh create --name=my-tpu --zone=us-east5-a --type=v5p-16
  launch/tpu_vm.sh create --name=my-tpu --zone=us-east5-a --topology=v5p:2x2x4 --queued --spot
  launch/tpu_vm.sh create --name=my-tpu --zone=us-east5-b --type=v6e-256 --slices=2 -- --network=my-network

Without --queued it fails if there is no capacity now; with it Google keeps the request until there is, and `status
--queued` says how far it is. What follows -- goes to gcloud as it is.

  --type=TYPE        Google's accelerator type: v4-CORES, v5litepod-CHIPS, v5p-CORES or v6e-CHIPS. A chip of v4 and v5p
                     has two cores: v5p-16 are 8 chips.
  --topology=G:AxB   or the chips along each side, as in vidflow: v5p:2x2x4, v6e:16x16. G is v4, v5e, v5p or v6e.
  --queued           ask through the queue (a queued resource)
  --spot             capacity that is cheaper and can be taken away
  --slices=N         N slices for one run; always through the queue (TPU_SLICES)
  --version=IMAGE    runtime image; by default the one of the generation
TEXT
    install) cat << 'TEXT' ;;
launch/tpu_vm.sh install: put this checkout on every host and install it there.

  launch/tpu_vm.sh install --name=my-tpu --zone=us-east5-a

Sends what HEAD holds, and installs it with the versions of requirements.txt and the extra [tpu] into ~/vidflow/venv.
The images carry Python 3.10; where there is no Python of 3.11 or later with venv, uv brings 3.12. ~/vidflow/source/runs
stays when it is done again. For several hosts gcloud wants its key in the agent: ssh-add ~/.ssh/google_compute_engine
TEXT
    run) cat << 'TEXT' ;;
launch/tpu_vm.sh run -- COMMAND: start a command on every host, in ~/vidflow/source, and return.

  launch/tpu_vm.sh run --name=my-tpu --zone=us-east5-a -- vidflow train --config=experiments/bounce/autoencoder.py \
      --workdir=/mnt/bucket/runs/autoencoder --distributed

The same command starts everywhere, as it is written. --distributed makes the hosts one run; its --workdir must then be
a folder that all of them see, as Filestore gives or a bucket mounted on each with gcsfuse: run -- sudo gcsfuse ...
Variables go before it: run -- env NAME=VALUE vidflow ... While a run is going a second one is refused.
Every host keeps its log and its exit code in ~/vidflow/run.
TEXT
    logs) cat << 'TEXT' ;;
launch/tpu_vm.sh logs: follow the log of one host until its run ends.

  launch/tpu_vm.sh logs --name=my-tpu --zone=us-east5-a --worker=1

  --worker=N   host of the slice, 0 by default
  --slice=N    slice, where there are several; 0 by default
TEXT
    status) cat << 'TEXT' ;;
launch/tpu_vm.sh status: the state of the TPU, then what runs on every host or how it ended.

  launch/tpu_vm.sh status --name=my-tpu --zone=us-east5-a

  --queued   made with --queued: the state of the request
TEXT
    fetch) cat << 'TEXT' ;;
launch/tpu_vm.sh fetch RUN: copy a run folder to this machine, into runs/ or another folder.

  launch/tpu_vm.sh fetch gs://my-bucket/runs/autoencoder -- '--exclude=checkpoints/.*'
  launch/tpu_vm.sh fetch runs/autoencoder --out=fetched --name=my-tpu --zone=us-east5-a

A gs:// folder is synchronised: what is here already is not copied again, and what follows -- goes to gcloud storage
rsync. Any other folder comes from worker 0; if relative, it is relative to where runs start.

  --out=DIR   where the folder goes, under its own name; runs by default
TEXT
    stop) cat << 'TEXT' ;;
launch/tpu_vm.sh stop: end the run on every host with SIGTERM, and wait until it has ended.

  launch/tpu_vm.sh stop --name=my-tpu --zone=us-east5-a

  --force   SIGKILL, for a run that SIGTERM does not end
TEXT
    delete) cat << 'TEXT' ;;
launch/tpu_vm.sh delete: delete the TPU VM and all that is on its disks. gcloud asks first; -- --quiet does not.

  launch/tpu_vm.sh delete --name=my-tpu --zone=us-east5-a

  --queued   made with --queued: the request with its TPU VM
TEXT
    *) cat << 'TEXT' ;;
usage: launch/tpu_vm.sh create|install|run|logs|status|fetch|stop|delete ...

Runs one vidflow command on a whole Cloud TPU slice, with nothing but gcloud on this machine:

  launch/tpu_vm.sh create --name=my-tpu --zone=us-east5-a --type=v5p-16
  launch/tpu_vm.sh install --name=my-tpu --zone=us-east5-a
  launch/tpu_vm.sh run --name=my-tpu --zone=us-east5-a -- vidflow train --config=experiments/bounce/autoencoder.py \
      --workdir=/mnt/bucket/runs/autoencoder --distributed
  launch/tpu_vm.sh logs --name=my-tpu --zone=us-east5-a
  launch/tpu_vm.sh status --name=my-tpu --zone=us-east5-a
  launch/tpu_vm.sh fetch gs://my-bucket/runs/autoencoder
  launch/tpu_vm.sh delete --name=my-tpu --zone=us-east5-a

Each explains itself with --help. Flags that all of them take:

  --name=NAME      the TPU (TPU_NAME)
  --zone=ZONE      where it is (TPU_ZONE)
  --project=ID     whose it is (TPU_PROJECT; else gcloud's own)
  --slices=N       as given to create (TPU_SLICES; 1 by default)
  --internal-ip    reach the hosts by their internal addresses
  --dry-run        print the commands, one a line, and run none
TEXT
  esac
}

main() {
  subcommand=${1:-}
  local common="name= zone= project= slices= internal-ip dry-run"
  flag_name=${TPU_NAME:-} flag_zone=${TPU_ZONE:-} flag_project=${TPU_PROJECT:-} flag_slices=${TPU_SLICES:-1}
  flag_dry_run=
  case $subcommand in
    "" | -h | --help)
      help_text
      return
      ;;
    on-host)
      shift
      on_host "$@"
      return
      ;;
    create) read_flags "$common type= topology= version= queued spot" "${@:2}" ;;
    logs) read_flags "$common worker= slice=" "${@:2}" ;;
    status | delete) read_flags "$common queued" "${@:2}" ;;
    fetch) read_flags "$common out=" "${@:2}" ;;
    stop) read_flags "$common force" "${@:2}" ;;
    install | run) read_flags "$common" "${@:2}" ;;
    *) die "Subcommand '$subcommand' is unknown: use one of ${COMMANDS// /, }." ;;
  esac
  case $subcommand in
    run) require_command ;;
    fetch) [ ${#words[@]} -eq 1 ] || die "fetch needs one run folder: $program fetch gs://BUCKET/RUN." ;;
    *) no_words ;;
  esac
  case $subcommand in
    create | delete | fetch | run) ;;
    *) [ ${#rest[@]} -eq 0 ] || die "$subcommand takes nothing after --, and there is '${rest[0]}'." ;;
  esac
  project=()
  [ -z "$flag_project" ] || project=(--project="$flag_project")
  # A run folder in a bucket is fetched without any TPU.
  if [[ $subcommand != fetch || ${words[0]} != gs://* ]]; then
    require_name name TPU_NAME
    require zone TPU_ZONE
    require_number slices 1
    at=(--zone="$flag_zone" ${project[@]+"${project[@]}"})
    # The TPU VM of one slice has the name itself, also in the queue; several are reached through their request.
    nodes=tpu-vm
    [ "$flag_slices" -eq 1 ] || nodes=queued-resources flag_queued=1
  fi
  need gcloud "install the Google Cloud CLI, see https://cloud.google.com/sdk/docs/install"
  "do_$subcommand"
}

do_create() {
  read_slice
  local tool=(gcloud compute tpus) what=(--accelerator-type="$flag_type") how=() node=(--node-id="$flag_name")
  if [ -n "$flag_topology" ]; then
    what=(--type="$google" --topology="$shape")
    [ "$track" = released ] || tool=(gcloud "$track" compute tpus)
  fi
  [ -z "$flag_spot" ] || how+=(--spot)
  how+=(${rest[@]+"${rest[@]}"})
  image=${flag_version:-$image}
  if [ -n "$flag_queued" ]; then
    [ "$flag_slices" -eq 1 ] || node=(--node-count="$flag_slices" --node-prefix="$flag_name")
    run_or_print "${tool[@]}" queued-resources create "$flag_name" "${at[@]}" "${node[@]}" "${what[@]}" \
      --runtime-version="$image" ${how[@]+"${how[@]}"}
  else
    run_or_print "${tool[@]}" tpu-vm create "$flag_name" "${at[@]}" "${what[@]}" --version="$image" \
      ${how[@]+"${how[@]}"}
  fi
}

do_install() {
  read_commit
  local file=$root/build/vidflow-$flag_name.tar.gz
  run_or_print mkdir -p "$root/build"
  run_or_print git -C "$root" archive --format=tar.gz --output="$file" HEAD
  hosts scp all all "$file" "$flag_name:vidflow.tar.gz"
  hosts ssh all all --command="rm -rf vidflow/incoming && mkdir -p vidflow/incoming &&\
 tar -xzf vidflow.tar.gz -C vidflow/incoming && bash vidflow/incoming/launch/tpu_vm.sh on-host install $commit"
}

do_run() {
  remotely all all check
  remotely all all start "${rest[@]}" || {
    local code=$?
    echo "$program: some hosts may have started: see status, and use stop before the next run." >&2
    exit $code
  }
  [ -n "$flag_dry_run" ] || echo "Started on every host: $program logs follows it, status says how it ended." >&2
}

do_logs() {
  flag_worker=${flag_worker:-0} flag_slice=${flag_slice:-0}
  require_number worker 0
  require_number slice 0
  [ "$flag_slice" -lt "$flag_slices" ] ||
    die "--slice=$flag_slice is not one of $flag_slices: slices count from 0, and --slices=N says how many there are."
  remotely "$flag_slice" "$flag_worker" logs
}

do_status() {
  if [ -n "$flag_queued" ]; then
    run_or_print gcloud compute tpus queued-resources describe "$flag_name" "${at[@]}" "--format=value(state.state)"
  else
    run_or_print gcloud compute tpus tpu-vm describe "$flag_name" "${at[@]}" "--format=value(state,health)"
  fi
  remotely all all status
}

do_fetch() {
  local from=${words[0]%/} out=${flag_out:-runs}
  local into=$out/${from##*/}
  case $from in
    gs://*)
      run_or_print mkdir -p "$into"
      run_or_print gcloud storage rsync --recursive "$from" "$into" ${project[@]+"${project[@]}"} \
        ${rest[@]+"${rest[@]}"}
      return
      ;;
    /*) ;;
    *) from=vidflow/source/$from ;;
  esac
  run_or_print mkdir -p "$out"
  hosts scp 0 0 --recurse "$flag_name:$from" "$out" ${rest[@]+"${rest[@]}"}
}

do_stop() {
  remotely all all stop ${flag_force:+KILL}
}

do_delete() {
  local what=(tpu-vm delete "$flag_name")
  # --force: with the TPU VMs that belong to the request.
  [ -z "$flag_queued" ] || what=(queued-resources delete "$flag_name" --force)
  run_or_print gcloud compute tpus "${what[@]}" "${at[@]}" ${rest[@]+"${rest[@]}"}
}

# hosts ssh|scp SLICE WORKER ARG...: on those hosts of the TPU; each is a number or `all`.
hosts() {
  local verb=$1 which=(--worker="$3") target=("$flag_name") internal=()
  [ "$nodes" = tpu-vm ] || which=(--node="$2" "${which[@]}")
  [ "$verb" = ssh ] || target=()
  [ -z "$flag_internal_ip" ] || internal=(--internal-ip)
  run_or_print gcloud compute tpus "$nodes" "$verb" ${target[@]+"${target[@]}"} "${@:4}" "${at[@]}" "${which[@]}" \
    ${internal[@]+"${internal[@]}"}
}

# remotely SLICE WORKER VERB WORD...: `on-host VERB WORD...` there, by the copy of this script that `install` brought.
remotely() {
  local code=0
  hosts ssh "$1" "$2" --command="$(quoted bash vidflow/source/launch/tpu_vm.sh on-host "${@:3}")" || code=$?
  [ $code -ne 127 ] || echo "$program: vidflow is not installed on every host: use install first." >&2
  return $code
}

# ---------------------------------------------------------------------------------------------------------------------
# On a host. ~/vidflow holds source/, venv/, runs/ and, of the last run, run/: command, log, exit_code, pgid, lock. All
# processes of a run hold the lock, so it is free exactly when the run has ended, however it ended.

on_host() {
  host=$HOME/vidflow
  mkdir -p "$host/run"
  # The run itself inherits the lock, held, from the process that started it.
  [ "$1" = supervise ] || exec 9>> "$host/run/lock"
  "host_$1" "${@:2}"
}

# No run is going; then this process holds the lock.
idle() {
  flock --nonblock 9
}

host_install() {
  require_idle
  cd "$host"
  rm -rf source run/commit  # written last: a host whose install failed has none
  mv incoming source
  mkdir -p runs caches
  ln -s ../runs ../caches source/
  venv/bin/python -m pip --version > /dev/null 2>&1 || make_venv
  cd source
  ../venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -e '.[tpu]'
  echo "$1" > ../run/commit
  echo "$(hostname): vidflow $1 is installed"
}

make_venv() {
  local python
  for python in python3 python3.13 python3.12 python3.11; do
    if "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
      "$python" -m venv --clear venv
      return
    fi
  done
  PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --quiet --user --upgrade uv
  python3 -m uv venv --quiet --clear --seed --python 3.12 venv
}

require_idle() {
  idle || die "A run is going on $(hostname) ($(cat "$host/run/command")): follow it with logs or end it with stop."
}

host_check() {
  require_idle
  [ -f "$host/run/commit" ] && [ -x "$host/venv/bin/python" ] ||
    die "vidflow is not installed on $(hostname): use install first."
}

host_start() {
  host_check
  rm -f "$host/run/exit_code"
  quoted "$@" > "$host/run/command"
  # Its own session, so that it outlives this one and that stop reaches all of it; $! is then its process group.
  setsid bash "$host/source/launch/tpu_vm.sh" on-host supervise "$@" < /dev/null >> "$host/run/log" 2>&1 &
  echo $! > "$host/run/pgid"
  echo "$(hostname): started"
}

# Is the run: SIGTERM reaches the command too, and what it then returns is still written down.
host_supervise() {
  local code=0
  trap : TERM
  VIDFLOW_COMMIT=$(cat "$host/run/commit")
  export VIDFLOW_COMMIT PATH="$host/venv/bin:$PATH" PYTHONUNBUFFERED=1
  echo "=== $(date --utc +%FT%TZ)  commit $VIDFLOW_COMMIT  $(cat "$host/run/command")"
  cd "$host/source"
  "$@" || code=$?
  echo $code > "$host/run/exit_code.new"
  mv "$host/run/exit_code.new" "$host/run/exit_code"
}

host_logs() {
  [ -f "$host/run/log" ] || die "Nothing has run on $(hostname) yet."
  local follow=()
  idle || follow=(--follow=name --sleep-interval=0.5 --pid="$(cat "$host/run/pgid")")
  exec tail --lines=100 ${follow[@]+"${follow[@]}"} "$host/run/log"
}

host_status() {
  local state="ended without an exit code"
  if [ ! -f "$host/run/command" ]; then
    echo "$(hostname): nothing has run"
    return
  elif ! idle; then
    state=running
  elif [ -f "$host/run/exit_code" ]; then
    state="ended with exit code $(cat "$host/run/exit_code")"
  fi
  echo "$(hostname): $state: $(cat "$host/run/command")"
}

host_stop() {
  if ! idle; then
    kill -s "${1:-TERM}" -- "-$(cat "$host/run/pgid")" || true
    flock --wait "$WAIT" 9 ||
      die "The run on $(hostname) has not ended after $WAIT seconds: use stop again, or stop --force."
  fi
  host_status
}

main "$@"
