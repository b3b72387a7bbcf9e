# SLURM sends USR1 to this script shortly before the time limit, and TERM when the task is cancelled or preempted.
# initbench stores a checkpoint of its runs when it receives TERM, and the next call resumes them.
received=''
on_time_limit() {
    received=USR1
    kill -TERM "$trainer" 2>/dev/null
}
on_end() { # SLURM usually sends TERM to all processes of the task, and a second one would skip the checkpoint
    received=TERM
    { sleep 5 && kill -TERM "$trainer"; } 2>/dev/null &
}
requeue() {
    local restarts=${SLURM_RESTART_COUNT:-0}
    if ((restarts >= max_requeues)); then
        echo "shard $shard/$shards is unfinished after $restarts requeues; run submit.sh again to resume it" >&2
        exit 1
    fi
    echo "shard $shard/$shards stopped at its time limit; requeueing this task to resume it" >&2
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}" && exit 0
    echo "this task cannot be requeued; run submit.sh again to resume shard $shard/$shards" >&2
    exit 1
}

shard=$((SLURM_ARRAY_TASK_ID + ${1:-0} + 1))
trap on_time_limit USR1
trap on_end TERM
"${initbench[@]}" "${train[@]}" --shard "$shard/$shards" --runs-dir "$directory/runs/shard-$shard" \
    --max-time "$max_seconds" &
trainer=$!
wait "$trainer"
while kill -0 "$trainer" 2>/dev/null; do wait "$trainer"; done # a signal ends wait early
wait "$trainer"
code=$?
if [[ $received == TERM ]]; then
    exit 143 # SLURM itself requeues a preempted task
elif [[ $received == USR1 ]] || { ((code == 0)) && ((SECONDS >= max_seconds)); }; then
    requeue
fi
exit "$code"
