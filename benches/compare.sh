#!/usr/bin/env bash
# Runs the scenarios of `concord bench` against every server in turn, each on a fresh process and
# an empty directory, round after round, and prints one Markdown table of the medians.
#
#   benches/compare.sh                   # everything, three rounds
#   ROUNDS=1 SERVERS="samod concord" SCENARIOS="many" benches/compare.sh
#
# RESULTS=DIR keeps the JSON of every run. TRACE is an editing trace for `join`.
# Needs: cargo build --release --bin concord --example samod_server, and `npm ci` in
# benches/servers/js-sync-server and benches/servers/automerge-repo-server.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
release=${CARGO_TARGET_DIR:-$root/target}/release
bench=${BENCH:-$release/concord bench}
rounds=${ROUNDS:-3}
servers=${SERVERS:-js-0.2.8 automerge-repo-2.5.6 samod-0.16 concord}
scenarios=${SCENARIOS:-spaced-small spaced-large saturate-small saturate-large many connect join}
readers_many=${READERS:-100}
trace=${TRACE:-$root/../shared/traces/automerge-paper.json.gz}
work=$(mktemp -d)
results=${RESULTS:-$work/results}
mkdir -p "$results"
server_pid=

stop_server() {
  if [[ -n $server_pid ]]; then
    kill "$server_pid" 2>/dev/null || true
    wait "$server_pid" 2>/dev/null || true
    server_pid=
  fi
}
trap 'stop_server; rm -rf "$work"' EXIT

free_port() {
  node -e 'const s = require("net").createServer().listen(0, "127.0.0.1", () => {
    console.log(s.address().port); s.close() })'
}

# start_server NAME DATA_DIR: sets server_pid and port, returns when it takes connections.
start_server() {
  port=$(free_port)
  local command
  case $1 in
    js-0.2.8)
      command=(node "${JS_SYNC_SERVER:-$here/servers/js-sync-server}/node_modules/@automerge/automerge-repo-sync-server/src/index.js") ;;
    automerge-repo-2.5.6) command=(node "${AUTOMERGE_REPO_SERVER:-$here/servers/automerge-repo-server}/server.js") ;;
    samod-0.16) command=("$release/examples/samod_server") ;;
    concord) command=("$release/concord" serve --port "$port" --data-dir "$2") ;;
    *) echo "unknown server $1" >&2; exit 2 ;;
  esac
  PORT=$port DATA_DIR=$2 "${command[@]}" >"$work/server.log" 2>&1 &
  server_pid=$!
  for _ in $(seq 100); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then return; fi
    if ! kill -0 "$server_pid" 2>/dev/null; then break; fi
    sleep 0.1
  done
  echo "$1 did not start:" >&2
  cat "$work/server.log" >&2
  exit 1
}

# run SCENARIO SERVER ROUND
run() {
  local data=$work/data options out=$results/$1.$2.$3.json
  rm -rf "$data"
  mkdir -p "$data"
  start_server "$2" "$data"
  case $1 in
    spaced-small) options=(fanout --readers 10 --rate 20 --changes 200) ;;
    spaced-large) options=(fanout --readers 10 --rate 5 --changes 50 --operations 100000) ;;
    saturate-small) options=(fanout --readers "$readers_many" --saturate 10 --window 256) ;;
    saturate-large) options=(fanout --readers "$readers_many" --saturate 10 --window 256 --operations 100000) ;;
    many) options=(many --documents 1000 --hold 2 --settle "${SETTLE:-30}") ;;
    connect) options=(connect --connections 1000) ;;
    join)
      options=(join --clients 50)
      if [[ -e $trace ]]; then options+=(--trace "$trace"); fi
      # Cold: the server is started anew between the upload and the clients.
      $bench "${options[@]}" --upload-only --json --url "ws://127.0.0.1:$port" >/dev/null
      sleep "${SAVE_SECONDS:-2}" # what the others save, they save some time later
      stop_server
      start_server "$2" "$data"
      options+=(--no-upload) ;;
    *) echo "unknown scenario $1" >&2; exit 2 ;;
  esac
  if ! timeout "${LIMIT_SECONDS:-600}" $bench "${options[@]}" --json --timeout "${TIMEOUT:-60}" \
    --url "ws://127.0.0.1:$port" --pid "$server_pid" >"$out" 2>"$work/error"; then
    echo "$1 on $2: $(cat "$work/error")" >&2
    rm -f "$out"
  fi
  stop_server
}

for round in $(seq "$rounds"); do
  for scenario in $scenarios; do
    for server in $servers; do
      echo "round $round: $scenario on $server" >&2
      run "$scenario" "$server" "$round"
    done
  done
done

node "$here/table.mjs" "$results" "$scenarios" "$servers"
