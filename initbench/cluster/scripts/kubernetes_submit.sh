cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
wait_for() { # wait_for JOB OPTION…: wait until the job has ended, and fail if it failed
    local conditions
    while true; do
        conditions=" $(kubectl get job "$@" -o 'jsonpath={.status.conditions[?(@.status=="True")].type}') "
        case $conditions in
        *' Complete '*) return 0 ;;
        *' Failed '*) return 1 ;;
        esac
        sleep "${POLL_SECONDS:-10}"
    done
}

kubectl apply -f job.yaml "$@"
wait_for "$job" "$@" || echo "some indexes of the job $job failed; see kubectl describe job $job" >&2
kubectl delete job "$job-merge" --ignore-not-found "$@" # an earlier result
kubectl apply -f merge-job.yaml "$@"
code=0
wait_for "$job-merge" "$@" || code=1
kubectl logs "job/$job-merge" "$@"
exit "$code"
