# Sourced by tpu_vm.sh and xpk.sh: their flags, their errors, and commands that --dry-run prints instead of running.
set -euo pipefail
program=launch/$(basename "$0")
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# The TPU generations: vidflow's name and Google's; the sides of a slice; what the number in a type (v5p-16) counts;
# the runtime image of a TPU VM (docs.cloud.google.com/tpu/docs/runtimes); the gcloud track whose --type knows the name
# beside a --topology (the released one of gcloud 528 stops at v4).
# vidflow  Google     sides  counts  image                track
GENERATIONS="
  v4       v4         AxBxC  CORES   tpu-ubuntu2204-base  released
  v5e      v5litepod  AxB    CHIPS   v2-alpha-tpuv5-lite  alpha
  v5p      v5p        AxBxC  CORES   v2-alpha-tpuv5       alpha
  v6e      v6e        AxB    CHIPS   v2-alpha-tpuv6e      alpha
"

# One sentence: what is wrong, where, what to do.
die() {
  echo "$program: error: $*" >&2
  exit 2
}

# Prints its words as one line that a shell, or Python's shlex, reads back as the same words.
quoted() {
  local LC_ALL=C word rest part line=''
  for word; do
    case $word in
      "" | *[!A-Za-z0-9_./:=,@%+-]*)
        rest=$word part=
        while [ "$rest" != "${rest#*\'}" ]; do
          part=$part${rest%%\'*}"'\\''"
          rest=${rest#*\'}
        done
        word="'$part$rest'"
        ;;
    esac
    line="$line $word"
  done
  printf '%s\n' "${line# }"
}

# Runs a command, after showing it; with --dry-run it only shows it.
run_or_print() {
  if [ -n "$flag_dry_run" ]; then
    quoted "$@"
  else
    echo "+ $(quoted "$@")" >&2
    "$@"
  fi
}

# need PROGRAM HOW: the program is there, or one sentence says how to get it. A dry run needs none.
need() {
  [ -n "$flag_dry_run" ] || command -v "$1" > /dev/null || die "$1 is not installed: $2"
}

# read_flags "KNOWN" WORD...: KNOWN lists the flags, those with a value as NAME=. --NAME=VALUE or --NAME VALUE sets
# flag_NAME (a flag without value to 1, an absent one to what it was before, or empty). Other words go to `words`, and
# what follows -- to `rest`.
read_flags() {
  local known=$1 word name value variable
  shift
  for name in $known; do
    variable=flag_${name%=}
    variable=${variable//-/_}
    printf -v "$variable" %s "${!variable:-}"
  done
  words=() rest=()
  while [ $# -gt 0 ]; do
    word=$1
    shift
    case $word in
      --)
        rest=("$@")
        return
        ;;
      -h | --help)
        help_text "$subcommand"
        exit 0
        ;;
      -*) ;;
      *)
        words+=("$word")
        continue
        ;;
    esac
    name=${word%%=*}
    variable=flag_${name#--}
    variable=${variable//-/_}
    case " $known " in
      *" ${name#--}= "*)
        value=${word#*=}
        if [ "$value" = "$word" ]; then
          value=${1:-}
          [ $# -eq 0 ] || shift
        fi
        case $value in "" | --*) die "Flag $name needs a value: write $name=VALUE." ;; esac
        printf -v "$variable" %s "$value"
        ;;
      *" ${name#--} "*)
        [ "$name" = "$word" ] || die "Flag $name takes no value: write $name alone, not $word."
        printf -v "$variable" 1
        ;;
      *)
        known=" ${known//=/}"
        die "Flag $name is unknown to $subcommand, which takes${known// / --}: see $program $subcommand --help."
        ;;
    esac
  done
}

# require NAME [VARIABLE]: the flag --NAME was given, or the variable of the environment that stands in for it.
require() {
  local variable=flag_$1
  [ -n "${!variable}" ] || die "$subcommand does not know the $1: give --$1=VALUE${2:+ or export $2=VALUE}."
}

# Also one that Google takes as a name; such a name is safe in a path.
require_name() {
  local variable=flag_$1
  require "$@"
  [[ ${!variable} =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] ||
    die "--$1=${!variable} is not a name that Google takes: use lower-case letters, digits and inner dashes."
}

require_number() {
  local variable=flag_$1
  [[ ${!variable} =~ ^(0|[1-9][0-9]*)$ && ${!variable} -ge $2 ]] ||
    die "--$1=${!variable} is not a number of at least $2."
}

# Nothing but flags, except after --.
no_words() {
  [ ${#words[@]} -eq 0 ] || die "$subcommand does not take '${words[0]}': see $program $subcommand --help."
}

# What stands after --, which must be something.
require_command() {
  [ ${#words[@]} -eq 0 ] && [ ${#rest[@]} -gt 0 ] ||
    die "run needs the command after --: $program run -- vidflow train --config=FILE.py --workdir=FOLDER."
}

# Reads --type or --topology into google (the name), shape (AxBxC, or empty with --type), image and track.
read_slice() {
  local name wanted sides counts known='' types=''
  [ -z "$flag_type" ] || [ -z "$flag_topology" ] || die "--type and --topology both say which TPU: give one of them."
  [ -n "$flag_type$flag_topology" ] ||
    die "$subcommand does not know which TPU: give --type=v5p-16 or --topology=v5p:2x2x2."
  wanted=${flag_topology%%:*} shape=${flag_topology#*:}
  while read -r name google sides counts image track; do
    [ -n "$name" ] || continue
    if [ -n "$flag_type" ]; then
      [[ $flag_type =~ ^$google-[1-9][0-9]*$ ]] && return
    elif [ "$wanted" = "$name" ]; then
      [[ $shape =~ ^[1-9][0-9]*(x[1-9][0-9]*)*$ && ${shape//[0-9]/} = "${sides//[A-C]/}" ]] && return
      die "--topology=$flag_topology is not of the form $name:$sides, chips along each side of the slice."
    fi
    known="$known, $name" types="$types, $google-$counts"
  done <<< "$GENERATIONS"
  [ -z "$flag_type" ] || die "Unknown TPU type in --type=$flag_type: use one of${types#,}."
  die "Unknown TPU generation '$wanted' in --topology=$flag_topology: use one of${known#,}."
}

# The commit that is sent, in `commit`.
read_commit() {
  commit=$(git -C "$root" rev-parse HEAD 2> /dev/null) ||
    die "$root is not a git checkout, and what is sent is its HEAD: clone vidflow with git."
  [ -z "$(git -C "$root" status --porcelain 2> /dev/null)" ] ||
    echo "$program: note: changes that are not committed are not sent." >&2
}
