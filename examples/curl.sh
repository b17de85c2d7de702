#!/bin/sh
# The queue with curl alone: `sh examples/curl.sh` beside a running `wakeq serve`.
set -eu
url=${WAKEQ_URL:-http://127.0.0.1:8001}
json='content-type: application/json'

echo "make a topic"
curl -fsS -X PUT -H "$json" -d '{"schema": "json", "lease_s": 60}' "$url/topics/curl" >/dev/null

echo "publish, twice the same: the second enqueues nothing"
for _ in 1 2; do
    curl -fsS -X POST -H "$json" -H 'idempotency-key: greeting-1' -d '{"hello": "world"}' "$url/messages/curl" >/dev/null
done

echo "publish a message a line, and one that is to come later"
printf '%s\n' '{"n": 1}' '{"n": 2}' |
    curl -fsS -X POST -H 'content-type: application/x-ndjson' --data-binary @- "$url/messages/curl" >/dev/null
curl -fsS -X POST -H "$json" -H 'wakeq-delay: 3600' -d '"later"' "$url/messages/curl" >/dev/null

echo "claim one, parked for at most 10 s"
claimed=$(curl -fsS -X POST -H "$json" -d '{"wait_s": 10}' "$url/messages/curl/claim")
printf '%s\n' "$claimed" | sed 's/.*"body":\({[^}]*}\).*/claimed \1/'

echo "ack it by its lease"
lease=$(printf '%s\n' "$claimed" | sed 's/.*"lease_id":"\([^"]*\)".*/\1/')
curl -fsS -X POST -H "$json" -d "{\"ack\": [\"$lease\"]}" "$url/messages/curl/settle" | sed 's/.*"status":"\([a-z]*\)".*/settled: \1/'
echo

echo "take the next ones without a lease, each acked when curl has it"
for _ in 1 2; do
    curl -fsS "$url/messages/curl?wait=10"
    echo
done

echo "look at what is left, and drop it"
curl -fsS "$url/topics/curl/messages?state=delayed" | sed 's/.*"body":\("[^"]*"\).*/left: \1/'
echo
curl -fsS -X DELETE "$url/topics/curl"
