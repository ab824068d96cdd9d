#!/usr/bin/env bash
# What a bank's back end has to cope with, provoked in the sandbox: 503, 502, 504, a locked
# user, an unknown request and a refused cancel. Then the user is unlocked again, and curl
# completes a request for a simulated phone. Needs bash, curl and python3; and Go, unless the
# variable CADDY names a Caddy with the sandbox. docs/sandbox.md explains the calls.
set -euo pipefail

dir=$(mktemp -d)
sandbox=
stop() {
  [ -z "$sandbox" ] || { kill "$sandbox" && wait "$sandbox"; } || true
  rm -rf "$dir"
}
trap stop EXIT
fail() { echo "FAILED: $*" >&2; exit 1; }

if [ -z "${CADDY:-}" ]; then
  CADDY=$dir/caddy
  (cd "$(dirname "$0")/.." && go build -o "$CADDY" ./cmd/caddy)
fi

# json PATH…: the members, such as result.serialNumber, of the JSON object on the standard input.
json() {
  python3 -c 'import functools, json, sys
content = json.load(sys.stdin)
values = [functools.reduce(lambda value, name: value[name], path.split("."), content) for path in sys.argv[1:]]
print(*(value if isinstance(value, str) else json.dumps(value) for value in values))' "$@"
}

# Any free ports; everything listens when the ready file exists.
ready=$dir/ready.json
"$CADDY" dsapp sandbox --listen localhost:0 --dir "$dir" --ready-file "$ready" --timeout 5s --quiet &
sandbox=$!
until [ -f "$ready" ]; do
  kill -0 "$sandbox" 2>/dev/null || fail "the sandbox does not start"
  sleep 0.1
done
read -r gateway control ca bank app <<<"$(json gateway control ca backEndKey frontEndKey <"$ready")"

# control METHOD PATH [BODY]
control() {
  curl -sS --fail-with-body -X "$1" ${3:+-d "$3"} -o "$dir/controlled" "$control/control/$2" || fail "control: $(cat "$dir/controlled")"
}

# expect HTTP-STATUS NAME KEY SERVICE BODY: calls a service and compares the answer. After an
# unexpected 503, for which nothing was sent to the authentication server, it tries again.
expect() {
  local http name
  for _ in {1..20}; do
    http=$(curl -sS --cacert "$ca" -u "$3:" -H 'Content-Type: application/json' -d "$5" \
      -o "$dir/answer" -w '%{http_code}' "$gateway/rest/v2/$4")
    [ "$http" = 503 ] && [ "$1" != 503 ] || break
    sleep 1
  done
  name=$(json resultCodes.statusCodeEnum <"$dir/answer")
  [ "$http $name" = "$1 $2" ] || fail "$4: $http $name instead of $1 $2"
  echo "$http $name: ${4##*/}"
}

register() { # HTTP-STATUS NAME [STATIC-PASSWORD]
  expect "$1" "$2" "$bank" provisioning/DSAPPSRPRegister \
    "{\"userID\":\"jane.doe\",\"domain\":\"mydomain.com\",\"staticPassword\":\"${3:-sandbox}\"}"
}

register 200 STAT_SUCCESS

echo "-- The authentication server refuses connections: nothing was sent, try again later."
control POST failures '{"kind":"refuse"}'
register 503 STAT_COMMS
control DELETE failures

echo "-- It answers with a Fault: it is unknown whether it did anything."
control POST failures '{"operation":"PROVISIONCMD_MDL_REGISTER","kind":"fault","times":1}'
register 502 STAT_COMMS

echo "-- It does not answer in time."
control POST failures '{"operation":"PROVISIONCMD_MDL_REGISTER","kind":"hang","times":1}'
register 504 STAT_COMMS

echo "-- Three wrong static passwords lock the user, until the bank unlocks it."
for _ in 1 2 3; do register 200 STAT_LOCAL_PASSWORD_MISMATCH wrong; done
register 200 STAT_LOCKED
control PATCH users '{"userID":"jane.doe","domain":"mydomain.com","locked":false}'
register 200 STAT_SUCCESS

phone() { "$CADDY" dsapp phone "$@" --ready-file "$ready" --json; }
read -r identifier password <<<"$(json result.registrationIdentifier result.activationPassword <"$dir/answer")"

echo "-- A phone with a wrong activation password is refused with exit status 1, with the right one it is activated."
status=0
phone activate --registration-identifier "$identifier" --activation-password wrong >"$dir/refused" 2>/dev/null || status=$?
[ "$status $(json error.resultCodes.statusCodeEnum <"$dir/refused")" = "1 STAT_INVCREDENTIALS" ] || fail "exit status $status"
phone activate --registration-identifier "$identifier" --activation-password "$password" >"$dir/first"
phone activate --device "$dir/other.json" >"$dir/second"
serial=$(json phone.serialNumber <"$dir/first")
other=$(json phone.serialNumber <"$dir/second")

echo "-- There is no request with this key."
expect 200 STAT_NOT_FOUND "$app" signature/push/getPreparedSignatureRequest "{\"serialNumber\":\"$serial\",\"requestKey\":\"0000000000\"}"

echo "-- The bank requests a signature. The phone retrieves it, and another one may not cancel it."
"$CADDY" dsapp sandbox request-signature --serial-number "$serial" --ready-file "$ready" >"$dir/requested" 2>&1 &
requested=$!
until phone sign --prepare >"$dir/prepared" 2>"$dir/prepared.error"; do
  kill -0 "$requested" 2>/dev/null || fail "requesting a signature: $(cat "$dir/requested" "$dir/prepared.error")"
  sleep 0.1
done
key=$(json request.key <"$dir/prepared")
expect 200 STAT_NOSUPPORT "$app" signature/push/cancelAuthSignatureRequest "{\"serialNumber\":\"$other\",\"requestKey\":\"$key\"}"

echo "-- curl completes it with the signature of the phone."
expect 200 STAT_SUCCESS "$app" signature/push/authSignature "$(json next.request <"$dir/prepared")"
wait "$requested" || fail "the bank got no signature: $(cat "$dir/requested")"

control POST reset
echo "All as expected."
