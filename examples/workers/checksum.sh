#!/bin/sh
# A worker in shell: the checksum of each file that a job names.
#
#   jobledger worker exec checksum -- examples/workers/checksum.sh
#   jobledger create checksum --user ada --parameters '{"files": ["README.md", "LICENSE"]}'
#
# Needs jq. The job comes on stdin; each line on stdout is progress, an asset or
# the result; the exit code says how it went. docs/guides/worker-programs.md is the protocol.
set -eu

job=$(cat)
count=$(printf '%s' "$job" | jq '.parameters.files | length')
sums='{}'
missing=0
done=0

while [ "$done" -lt "$count" ]; do
    file=$(printf '%s' "$job" | jq -r ".parameters.files[$done]")
    done=$((done + 1))
    if sum=$(sha256sum -- "$file" 2>/dev/null); then
        sums=$(printf '%s' "$sums" | jq -c --arg file "$file" --arg sum "${sum%% *}" '.[$file] = $sum')
    else
        echo "no such file: $file" >&2
        missing=$((missing + 1))
    fi
    jq -nc --argjson percent $((done * 100 / count)) --arg file "$file" \
        '{progress: $percent, message: $file}'
done

printf '%s\n' "$sums"
if [ "$missing" -eq "$count" ]; then exit 1; fi # FAILED
if [ "$missing" -gt 0 ]; then exit 3; fi        # PARTIAL
