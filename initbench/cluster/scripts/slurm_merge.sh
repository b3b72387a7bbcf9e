shopt -s nullglob
stores=("$directory"/runs/shard-*)
if ((${#stores[@]} == 0)); then
    echo "no task has stored a run; the logs of the tasks are in $directory/logs" >&2
    exit 1
fi
"${initbench[@]}" merge "${stores[@]}" --into "$runs" || exit
exec "${initbench[@]}" "${judge[@]}" --runs-dir "$runs"
