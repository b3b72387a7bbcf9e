cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
mkdir -p logs
jobs=()
for ((first = 0; first < shards; first += array_size)); do
    count=$((shards - first < array_size ? shards - first : array_size))
    job=$(sbatch --parsable --array="0-$((count - 1))$at_a_time" "$@" array.sbatch "$first")
    jobs+=("${job%%;*}") # the name of the cluster may follow
done
dependency=$(IFS=: && echo "afterany:${jobs[*]}")
merge=$(sbatch --parsable --dependency="$dependency" "$@" merge.sbatch)
echo "submitted ${jobs[*]}, and ${merge%%;*} to merge the runs"
