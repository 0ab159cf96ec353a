#!/bin/sh
# A search on several machines, played on one: a chief and two workers as processes on 127.0.0.1.
#
#     examples/distributed_search.sh [FOLDER]
#
# On real machines, run the same Python script once on each with the same three variables set, KERASTUNER_ORACLE_IP
# naming the chief's machine, and FOLDER on a disk that all of them see. See docs/distributed.md.
set -eu

HERE=$(dirname "$0")
SCRIPT=$HERE/distributed_search.py
FOLDER=${1:-$(mktemp -d)}
# The environment that `make` sets up, if it is there.
if [ -x "$HERE/../.venv/bin/python" ]; then OWN=$HERE/../.venv/bin/python; else OWN=python3; fi
PYTHON=${PYTHON:-$OWN}

export KERASTUNER_ORACLE_IP=127.0.0.1
# A port that is free now.
KERASTUNER_ORACLE_PORT=$("$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')
export KERASTUNER_ORACLE_PORT

# The chief must have "chief" in its name; every worker must have a name of its own, and keep it when it is restarted.
KERASTUNER_TUNER_ID=chief "$PYTHON" "$SCRIPT" "$FOLDER" &
chief=$!
KERASTUNER_TUNER_ID=worker0 "$PYTHON" "$SCRIPT" "$FOLDER" &
worker0=$!
KERASTUNER_TUNER_ID=worker1 "$PYTHON" "$SCRIPT" "$FOLDER" &
worker1=$!
trap 'kill $chief $worker0 $worker1 2>/dev/null || true' EXIT INT TERM # also if one fails

wait $worker0
wait $worker1
wait $chief # looks every 20 seconds whether all workers have left
echo "The search is in $FOLDER."
