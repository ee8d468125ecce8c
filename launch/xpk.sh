#!/usr/bin/env bash
# Runs one vidflow command on the TPU slices of a GKE cluster, as a workload of xpk. launch/xpk.sh --help explains it.
source "$(dirname "${BASH_SOURCE[0]}")/cloud.sh"

COMMANDS="create run list logs inspect stop delete"
IMAGE=python:3.12  # jax 0.12 needs Python 3.12; xpk's own default has 3.10.

help_text() {
  case ${1:-} in
    create) cat << 'TEXT' ;;
launch/xpk.sh create: make a GKE cluster with TPU slices.

  launch/xpk.sh create --cluster=my-cluster --zone=us-east5-a --type=v5p-16 --slices=2 --spot
  launch/xpk.sh create --cluster=my-cluster --zone=us-east5-a --topology=v5p:4x4x4 --reservation=my-reservation

  --type=TYPE          v4-CORES, v5litepod-CHIPS, v5p-CORES or v6e-CHIPS
  --topology=G:AxB     or the chips along each side, as in vidflow: v5p:4x4x4, v6e:16x16. G is v4, v5e, v5p or v6e.
  --slices=N           1 by default
  --spot, --reservation=NAME   the capacity; on demand without either

What follows -- goes to xpk cluster create as it is.
TEXT
    run) cat << 'TEXT' ;;
launch/xpk.sh run -- COMMAND: queue a command as a workload, on every host of its slices.

  launch/xpk.sh run --cluster=my-cluster --zone=us-east5-a --workload=autoencoder --type=v5p-16 --slices=2 -- \
      vidflow train --config=experiments/bounce/autoencoder.py --workdir=/mnt/bucket/runs/autoencoder --distributed

xpk puts what HEAD holds on top of a base image and uploads that; the hosts then install the versions of
requirements.txt and the extra [tpu] before they start. An image that has vidflow in it already starts at once.

  --type, --topology   as for create
  --slices=N           1 by default
  --base-image=IMAGE   what to build on, with Python 3.12 and pip; python:3.12 by default
  --image=IMAGE        run this image, which has vidflow installed, and build none
  --restarts=N         start again up to N times when a host is lost; vidflow resumes. 0 by default
TEXT
    list) cat << 'TEXT' ;;
launch/xpk.sh list: the workloads of the cluster and their state.

  launch/xpk.sh list --cluster=my-cluster --zone=us-east5-a
TEXT
    logs) cat << 'TEXT' ;;
launch/xpk.sh logs: follow the log of one host of a workload, with kubectl.

  launch/xpk.sh logs --cluster=my-cluster --zone=us-east5-a --workload=autoencoder --slice=1 --worker=0

  --worker=N   host of the slice, 0 by default
  --slice=N    0 by default
TEXT
    inspect) cat << 'TEXT' ;;
launch/xpk.sh inspect: why a workload does not run: its queue, its nodes, its events.

  launch/xpk.sh inspect --cluster=my-cluster --zone=us-east5-a --workload=autoencoder
TEXT
    stop) cat << 'TEXT' ;;
launch/xpk.sh stop: delete a workload, running or not; its hosts get SIGTERM first. xpk asks before it does.

  launch/xpk.sh stop --cluster=my-cluster --zone=us-east5-a --workload=autoencoder
TEXT
    delete) cat << 'TEXT' ;;
launch/xpk.sh delete: delete the cluster and all that runs on it. xpk asks before it does.

  launch/xpk.sh delete --cluster=my-cluster --zone=us-east5-a
TEXT
    *) cat << 'TEXT' ;;
usage: launch/xpk.sh create|run|list|logs|inspect|stop|delete ...

Runs one vidflow command on the TPU slices of a GKE cluster, through xpk (pip install xpk):

  launch/xpk.sh create --cluster=my-cluster --zone=us-east5-a --type=v5p-16
  launch/xpk.sh run --cluster=my-cluster --zone=us-east5-a --workload=autoencoder --type=v5p-16 -- \
      vidflow train --config=experiments/bounce/autoencoder.py --workdir=/mnt/bucket/runs/autoencoder --distributed
  launch/xpk.sh logs --cluster=my-cluster --zone=us-east5-a --workload=autoencoder
  launch/xpk.sh delete --cluster=my-cluster --zone=us-east5-a

launch/tpu_vm.sh fetch gs://my-bucket/runs/autoencoder then brings the results here. Each explains itself with --help.
Flags that all of them take:

  --cluster=NAME   the cluster (TPU_CLUSTER)
  --zone=ZONE      where its TPUs are (TPU_ZONE)
  --project=ID     whose it is (TPU_PROJECT; else gcloud's own)
  --dry-run        print the commands, one a line, and run none
TEXT
  esac
}

main() {
  subcommand=${1:-}
  local common="cluster= zone= project= dry-run" slice="type= topology= slices="
  flag_cluster=${TPU_CLUSTER:-} flag_zone=${TPU_ZONE:-} flag_project=${TPU_PROJECT:-}
  flag_dry_run='' flag_workload='' flag_slices=1 flag_restarts=0 flag_worker=0 flag_slice=0
  case $subcommand in
    "" | -h | --help)
      help_text
      return
      ;;
    create) read_flags "$common $slice spot reservation=" "${@:2}" ;;
    run) read_flags "$common $slice workload= base-image= image= restarts=" "${@:2}" ;;
    logs) read_flags "$common workload= worker= slice=" "${@:2}" ;;
    inspect | stop) read_flags "$common workload=" "${@:2}" ;;
    list | delete) read_flags "$common" "${@:2}" ;;
    *) die "Subcommand '$subcommand' is unknown: use one of ${COMMANDS// /, }." ;;
  esac
  case $subcommand in
    run) require_command ;;
    create) no_words ;;
    *)
      no_words
      [ ${#rest[@]} -eq 0 ] || die "$subcommand takes nothing after --, and there is '${rest[0]}'."
      ;;
  esac
  require_name cluster TPU_CLUSTER
  require zone TPU_ZONE
  case $subcommand in run | logs | inspect | stop) require_name workload ;; esac
  require_number slices 1
  require_number restarts 0
  require_number worker 0
  require_number slice 0
  project=()
  [ -z "$flag_project" ] || project=(--project="$flag_project")
  at=(--cluster="$flag_cluster" --zone="$flag_zone" ${project[@]+"${project[@]}"})
  if [ "$subcommand" = logs ]; then
    need gcloud "install the Google Cloud CLI, see https://cloud.google.com/sdk/docs/install"
    need kubectl "install it with gcloud components install kubectl"
  else
    need xpk "install it with pip install xpk"
  fi
  "do_$subcommand"
}

# --tpu-type=: xpk takes a topology as such, so that the slice has just that shape.
tpu_type() {
  read_slice
  tpu=--tpu-type=${flag_type:-$google-$shape}
}

do_create() {
  tpu_type
  local capacity=--on-demand
  [ -z "$flag_spot" ] || [ -z "$flag_reservation" ] ||
    die "--spot and --reservation are two capacities: give one of them."
  [ -z "$flag_spot" ] || capacity=--spot
  [ -z "$flag_reservation" ] || capacity=--reservation=$flag_reservation
  run_or_print xpk cluster create "${at[@]}" "$tpu" --num-slices="$flag_slices" "$capacity" ${rest[@]+"${rest[@]}"}
}

do_run() {
  tpu_type
  local image command folder=$root/build/xpk-$flag_workload
  # exec: SIGTERM then reaches the command itself, not a shell that waits for it.
  command="exec $(quoted "${rest[@]}")"
  if [ -n "$flag_image" ]; then
    [ -z "$flag_base_image" ] || die "--image is run as it is and --base-image is built on: give one of them."
    image=(--docker-image="$flag_image")
  else
    read_commit
    # A folder of its own: the checkout holds runs and environments too.
    run_or_print rm -rf "$folder"
    run_or_print mkdir -p "$folder"
    run_or_print git -C "$root" archive --format=tar --output="$folder.tar" HEAD
    run_or_print tar -xf "$folder.tar" -C "$folder"
    image=(--base-docker-image="${flag_base_image:-$IMAGE}" --script-dir="$folder" --env="VIDFLOW_COMMIT=$commit")
    command="pip install --quiet -r requirements.txt -e '.[tpu]' && $command"
  fi
  run_or_print xpk workload create "${at[@]}" --workload="$flag_workload" "$tpu" --num-slices="$flag_slices" \
    --max-restarts="$flag_restarts" "${image[@]}" --command="$command"
}

do_list() {
  run_or_print xpk workload list "${at[@]}"
}

do_logs() {
  local pod=jobset.sigs.k8s.io/jobset-name=$flag_workload
  pod=$pod,jobset.sigs.k8s.io/job-index=$flag_slice,batch.kubernetes.io/job-completion-index=$flag_worker
  # The clusters of xpk are regional: us-east5 of us-east5-a.
  run_or_print gcloud container clusters get-credentials "$flag_cluster" --location="${flag_zone%-*}" \
    ${project[@]+"${project[@]}"}
  run_or_print kubectl logs --namespace=default --selector="$pod" --tail=100 --follow
}

do_inspect() {
  run_or_print xpk inspector "${at[@]}" --workload="$flag_workload" --print-to-terminal
}

do_stop() {
  # Without --workload xpk would delete all of them.
  run_or_print xpk workload delete "${at[@]}" --workload="$flag_workload"
}

do_delete() {
  run_or_print xpk cluster delete "${at[@]}"
}

main "$@"
