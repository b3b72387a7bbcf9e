# SLURM sends USR1 to this script shortly before the time limit, and TERM to all processes of a task that is
# cancelled or preempted. On TERM, initbench stores checkpoints of its runs, and the next call resumes them.
shard=$((SLURM_ARRAY_TASK_ID + ${1:-0} + 1))
requeue() {
    local restarts=${SLURM_RESTART_COUNT:-0}
    if ((restarts >= max_requeues)); then
        echo "shard $shard/$shards is unfinished after $restarts requeues; run submit.sh again to resume it" >&2
        exit 1
    fi
    echo "shard $shard/$shards reached its time limit; this task is requeued to resume it" >&2
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID" && exit 0
    echo "this task cannot be requeued; run submit.sh again to resume shard $shard/$shards" >&2
    exit 1
}

"${initbench[@]}" "${train[@]}" --shard "$shard/$shards" --runs-dir "$directory/runs/shard-$shard" \
    --max-time "$max_seconds" &
trainer=$! received='' reminder=''
trap 'received=USR1; kill -TERM "$trainer"' USR1
# A second TERM would prevent the checkpoints, so it is sent only if the first one has not reached initbench.
trap 'received=TERM; { sleep 10 && kill -TERM "$trainer"; } >/dev/null 2>&1 & reminder=$!' TERM
wait "$trainer"
while kill -0 "$trainer" 2>/dev/null; do wait "$trainer"; done # a signal ends wait early
wait "$trainer"
code=$?
if [[ $received == TERM ]]; then
    kill "$reminder"
    exit 143 # SLURM itself requeues a preempted task
elif [[ $received == USR1 ]] || ((code <= 1 && SECONDS >= max_seconds)); then
    requeue
fi
exit "$code"
