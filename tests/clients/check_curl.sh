#!/usr/bin/env bash
# What `curl -N` shows of a stream:  check_curl.sh http://127.0.0.1:8000
set -euo pipefail

ask() { # question, more fields -> the raw answer
  curl -sSN "$address/v1/chat/completions" -H 'content-type: application/json' \
    -d "{\"messages\": [{\"role\": \"user\", \"content\": \"$1\"}]$2}"
}

has() { # text, pattern, what it shows
  grep -q -- "$2" <<<"$1" || { printf 'curl: %s\n%s\n' "$3" "$1" >&2; exit 1; }
}

address=$1
stream=$(ask 'How do I move a card?' ', "stream": true')
has "$stream" '^data: {.*"content": "Drag "' 'no words in the stream'
has "$stream" '"byheart": {' 'no sources in the stream'
[ "$(tail -n 1 <<<"$stream")" = 'data: [DONE]' ] || { echo 'curl: the stream does not end in [DONE]' >&2; exit 1; }
failed=$(ask fail ', "stream": true')
has "$failed" '^data: {"error": {"message": "Something went wrong' 'a dead engine is not told in the stream'
[ "$(tail -n 1 <<<"$failed")" = 'data: [DONE]' ] || { echo 'curl: a failed stream does not end in [DONE]' >&2; exit 1; }
head=$(curl -sSN -o /dev/null -D - "$address/v1/chat/completions" -H 'content-type: application/json' \
  -d '{"messages": [{"role": "user", "content": "short"}], "stream": true}')
has "$head" 'content-type: text/event-stream' 'the stream is not called one'
has "$head" 'x-accel-buffering: no' 'a proxy may hold the stream back'
has "$(ask 'How do I move a card?' ', "n": 2')" '"param": *"n"' 'n=2 is not refused by name'
echo 'curl -N: as it should be'
