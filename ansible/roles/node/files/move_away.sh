# Copy the store of this machine's node to the other nodes, or say what is not there yet; runs as the service's user.
#
#   move_away.sh look|copy|check STORE CLUSTER NODE...
#
# Every name at the top of the store goes by itself, because the node's own directory, .granum, lies beside them. Ends with 1
# when a file is not at the other nodes, byte for byte, that should be.
set -u
what=$1 store=$2 cluster=$3
shift 3
nodes=
for node; do nodes="$nodes --node $node"; done
granum="/opt/granum/current/bin/granum --no-discovery $nodes"
failed=0
cd "$store" || exit 1
for name in * .[!.]*; do
  [ -e "$name" ] && [ "$name" != .granum ] || continue
  there="granum://$cluster/$name"
  if [ "$what" = look ]; then
    # the last lines, because there may be millions; that sync ends with 1 is the answer here and no failure
    if [ -d "$name" ]; then $granum sync --dry-run "./$name" "$there" | tail -n 6; else echo "file     /$name"; fi
  elif [ "$what" = copy ]; then
    if [ -d "$name" ]; then $granum sync "./$name" "$there"; else $granum put "./$name" "$there"; fi || failed=1
  elif [ -d "$name" ]; then
    $granum --json sync --check "./$name" "$there" | /opt/granum/current/bin/python -c '
import json, sys
bad = [entry for entry in json.load(sys.stdin) if entry["outcome"] not in ("same", "extra")]
for entry in bad[:20]:
    print("not there:", entry.get("path", entry.get("local")), entry["outcome"], entry.get("error", ""))
sys.exit(bool(bad))' || failed=1
  else
    $granum cat "$there" | cmp -s - "./$name" || { echo "not there: /$name"; failed=1; }
  fi
done
exit $failed
