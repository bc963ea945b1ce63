# Functions that the scripts share: Ray on one node, and what SLURM means to do with a job. w2ltune
# puts them into the scripts that it submits; by hand: `. functions.bash` in the place of the mark.
set -u
python=("${W2LTUNE_PREFIX[@]}" "$W2LTUNE_PYTHON")
slurm=${W2LTUNE_SLURM:-$W2LTUNE_STUDY/slurm}/of-${W2LTUNE_USER:=$(id -un)} # only this user's
restart=${SLURM_RESTART_COUNT:-0}
this_job=$SLURM_JOB_ID
first_job=${W2LTUNE_FIRST_JOB:-$this_job} # another one where the site forbids requeueing
export RAY_AUTH_MODE=token
export RAY_USAGE_STATS_ENABLED=0
# Its pages for Prometheus listen on all interfaces and ask for no token: there are none.
export RAY_enable_metrics_collection=0 DASHBOARD_METRIC_PORT=-1 AUTOSCALER_METRIC_PORT=-1
export RAY_gcs_rpc_server_reconnect_timeout_s=15 # a lost head is lost
unset RAY_ADDRESS RAY_AUTH_TOKEN # which would win over the job's own
export SLURM_EXPORT_ENV=ALL # for the steps, whatever sbatch was told by --export
[ -z "$W2LTUNE_SCRATCH" ] || export TMPDIR=$W2LTUNE_SCRATCH # of the driver

own_folder() { # makes it; one that others could have filled, or can, is not used
  mkdir -p "${slurm%/*}" && { mkdir -m 755 "$slurm" 2>/dev/null || :; }
  [ -n "$(find "$slurm" -maxdepth 0 -type d -user "$(id -u)" ! -perm /022)" ] && return
  log "$slurm must be a folder of yours that nobody else may write to: move it away"
  exit 2
}

log() { printf '[%(%F %T)T] %s\n' -1 "$*"; }

small_step() { # in place of this shell: a step of one core that takes no GPU, as the job asks for them
  unset "${!SLURM_GPUS@}" SLURM_MEM_PER_GPU SLURM_TRES_PER_TASK
  exec srun --overlap --ntasks-per-node=1 --cpus-per-task=1 --gres=none "$@"
}

# A preemption sends TERM to the steps at once, and to the batch step only when the time of grace is
# over. So a step that does nothing else passes it on.
start_sentinel() {
  (small_step --nodes=1 --ntasks=1 --nodelist="$SLURMD_NODENAME" \
    bash -c 'trap "kill -USR2 $1; exit" TERM; while kill -0 "$1"; do sleep 1 & wait $!; done' \
    sentinel $$ >/dev/null \
    2> >(sed -n 's/^srun: error: Unable to/no early notice of preemptions: unable to/p' >&3)) 3>&1 &
}

kill_after() { # seconds, process; until "$timer" is killed
  { trap 'kill $!' TERM; sleep "$1" & wait $! && kill -KILL "$2"; } 2>/dev/null &
  timer=$!
}

await() { # the end of these children, so many seconds at most
  local limit=$((SECONDS + $1)) pid
  for pid in "${@:2}"; do
    until over "$pid" || ((SECONDS > limit)); do sleep 0.1; done
  done
}

# ---- Ray on one node. Nothing of it is left when this ends, however it ends. ---------------------
over() { ! kill -0 "$1" 2>/dev/null; }

listens() { timeout 5 bash -c 'exec 3<>"/dev/tcp/${0/://}"' "$1" 2>/dev/null; } # address:port

wait_for() { # a child, whatever signals come meanwhile; returns its exit code
  until over "$1"; do wait "$1"; done
  wait "$1"
}

address_of_node() {
  if [ -n "$W2LTUNE_INTERFACE" ]; then
    PATH=$PATH:/usr/sbin:/sbin ip -4 -o address show dev "$W2LTUNE_INTERFACE" |
      awk '{ sub("/.*", "", $4); print $4; exit }'
  else
    { getent ahostsv4 "$SLURMD_NODENAME"; hostname -I | tr ' ' '\n'; } |
      awk '/^[0-9.]+/ && !/^127\./ { print $1; exit }'
  fi
}

ray_node() { # what makes it the head or a worker
  local folder=/tmp/r$SLURM_JOB_ID # short, for the sockets in it
  local own ray guard life status timer='' scratch
  own=$(address_of_node)
  [ -n "$own" ] || { echo "no address of $SLURMD_NODENAME $W2LTUNE_INTERFACE"; return 1; }
  rm -rf "$folder".[0-9]* 2>/dev/null # what a killed run left; others' own stays theirs
  folder=$(mktemp -d "$folder.${SLURM_RESTART_COUNT:-0}.XXXX") || return 1
  scratch=${W2LTUNE_SCRATCH:-$folder}
  mkdir -p "$scratch"
  rm -rf "$scratch/w2ltune.$SLURM_JOB_ID".* 2>/dev/null
  TMPDIR=$(mktemp -d "$scratch/w2ltune.$SLURM_JOB_ID.XXXXXX") || return 1
  export TMPDIR # of the workers
  # The guard kills what works in the folder, and removes it, when this shell is gone.
  exec {life}> >(exec setsid "${python[@]}" -I -S "$guard_program" 0 0 "$folder" 2>&1)
  guard=$!
  # Several clusters may share the node: no port is fixed that need not be known elsewhere.
  "${python[@]}" -m w2ltune.cluster.raystart start --block --log-color=false \
    --node-ip-address="$own" --temp-dir="$folder" --object-store-memory=$((256 << 20)) \
    --num-cpus="$W2LTUNE_CPUS" --num-gpus="$W2LTUNE_GPUS" \
    --min-worker-port=0 --max-worker-port=0 "$@" {life}>&- &
  ray=$!
  trap 'kill "$ray" 2>/dev/null; [ -n "$timer" ] || kill_after 4 "$ray"' TERM # in good order
  wait_for "$ray"
  status=$?
  [ -z "$timer" ] || kill "$timer" 2>/dev/null
  exec {life}>&-
  wait "$guard"
  rm -rf "$TMPDIR"
  [ -z "$timer" ] || exit "$status" # it was told to
  return "$status"
}

# ---- What SLURM says. -----------------------------------------------------------------------------
read_job() {
  local _
  for _ in {1..5}; do
    job=$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null)
    job=${job#*$'\n'} # the first line has the name, which may be anything
    [[ $job == *JobState=* ]] && return
    sleep 1
  done
  silence=$(scontrol show job "$SLURM_JOB_ID" 2>&1 | tail -n 1) # why it says nothing
  return 1
}

field() { # of the job that was read
  [[ $job =~ [[:space:]]"$1"=([^[:space:]]*) ]] && echo "${BASH_REMATCH[1]}"
}

has_node() { # this job, or SLURM does not say
  local names
  ! read_job || ! names=$(scontrol show hostnames "$(field NodeList)") || grep -qxF "$1" <<<"$names"
}

ask_fate() { # sets $fate: what SLURM and its users mean to do with the job
  if ! read_job; then
    fate=unknown
  elif (($(field Restarts) > restart)); then
    fate=requeued # by an operator, or by SLURM after a preemption; the next run may be at work
  elif [ "$(field JobState)" = RUNNING ]; then
    fate=ours # a notice told us to stop, or nobody did
  elif [ "$(field PreemptTime)" = "$(field EndTime)" ]; then
    fate=ours # preempted where that means cancelled
  elif [ "$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%L)" = 0:00 ]; then
    fate=ours # the time limit, and it was too late to stop before
  else
    fate=cancelled
  fi
}

superseded() { # another run of this job has begun: this one was frozen or cut off, and must not write
  ask_fate
  [ "$fate" = requeued ]
}

submit_successor() { # where requeueing is forbidden
  local script name
  script=$(sed -n 's/^   Command=//p' <<<"$job")
  if [ -z "$(find "$script" -maxdepth 0 -type f -user "$(id -u)" ! -perm /022)" ]; then
    log "$script is not yours alone any more, so it is not submitted again"
    return 1
  fi
  for name in "${!SLURM_@}" "${!SBATCH_@}" "${!RAY_@}"; do
    [ "$name" = SLURM_CONF ] || unset "$name"
  done
  export W2LTUNE_FIRST_JOB=$first_job W2LTUNE_PREVIOUS_JOB=$this_job
  sbatch --dependency="afterany:$this_job" "$script"
}

go_on() { # as another run of this job, if that is for us to decide; else sets $final and $why
  local _
  for _ in 1 2 3; do
    ask_fate
    case $fate in
      requeued) log "requeued by SLURM" && return ;;
      cancelled) final=1 why="the job was cancelled" && return ;;
      unknown) log "SLURM does not answer ($silence): give the same command again" && return ;;
    esac
    [ "$(field Requeue)" = 0 ] && break
    scontrol requeue "$SLURM_JOB_ID" && log "requeued: $why" && return
    sleep 2
  done
  submit_successor || log "could be neither requeued nor submitted: give the same command again"
}
