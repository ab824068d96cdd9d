#!/usr/bin/env bash
# Runs an image that `make container` built with buildah as its user, without rights and with
# nothing to write to but its volumes, until its health check succeeds, and stops it. It needs
# root, buildah and openssl, and no runtime of containers: unshare gives the process namespaces
# of its own, and chroot the files of the image. Usage: check.sh IMAGE
set -euo pipefail

image=$1
here=$(cd "$(dirname "$0")/../.." && pwd)
dir=$(mktemp -d)
container=$(buildah from "$image")
running=
stop() {
	[ -z "$running" ] || { kill -KILL "$running" && wait "$running"; } 2>/dev/null || true
	buildah rm "$container" >/dev/null
	rm -rf "$dir"
}
trap stop EXIT
fail() {
	echo "FAILED: $*" >&2
	[ ! -f "$dir/log" ] || cat "$dir/log" >&2
	exit 1
}

# of FORMAT: a part of the configuration of the image.
of() { buildah inspect --type image --format "$1" "$image"; }
user=$(of '{{.OCIv1.Config.User}}')
[ "$user" != "" ] && [ "${user%%:*}" -gt 0 ] || fail "the image runs as root"
readarray -t command < <(of '{{range .OCIv1.Config.Entrypoint}}{{println .}}{{end}}{{range .OCIv1.Config.Cmd}}{{println .}}{{end}}' | grep .)
readarray -t environment < <(of '{{range .OCIv1.Config.Env}}{{println .}}{{end}}' | grep .)
readarray -t health < <(of '{{range .Docker.Config.Healthcheck.Test}}{{println .}}{{end}}' | grep . | tail -n +2)
[ ${#health[@]} -gt 0 ] || fail "the image has no health check"

# The secrets and the configuration that docs/install.md gives to the container.
root=$(buildah mount "$container")
mkdir -p "$root/etc/dsapp" "$root/etc/caddy" "$root/proc"
make -s -C "$here" example-files EXAMPLE_DIR="$root/etc/dsapp" >/dev/null
chown -R "$user" "$root/etc/dsapp"
cp "$here/Caddyfile.example" "$root/etc/caddy/Caddyfile"

# start COMMAND…: makes all but the volumes read only, gives up all rights, and becomes the command.
cat >"$dir/start" <<'SH'
set -eu
root=$1 user=$2
shift 2
mount --bind "$root" "$root"
for volume in config data run/caddy; do mount --bind "$root/$volume" "$root/$volume"; done
mount -t proc proc "$root/proc"
mount -o remount,bind,ro "$root"
exec setpriv --no-new-privs chroot --userspec="$user" --groups= "$root" "$@"
SH
env -i "${environment[@]}" DSAPP_OAS_URL=https://oas.example.com:8888/ \
	unshare --mount --net --ipc --uts --pid --fork --kill-child sh "$dir/start" "$root" "$user" "${command[@]}" >"$dir/log" 2>&1 &
running=$!
# process is the gateway: the only child of unshare.
process() { tr -d ' ' <"/proc/$running/task/$running/children"; }

# The files of the image are the same from outside, but for those that are mounted in the namespace.
healthy=
for _ in {1..100}; do
	kill -0 "$running" 2>/dev/null || fail "the gateway has ended"
	pid=$(process)
	if [ -n "$pid" ] && nsenter -t "$pid" -m -n -p chroot --userspec="$user" --groups= "$root" "${health[@]}" >"$dir/health" 2>&1; then
		healthy=1
		break
	fi
	sleep 0.2
done
[ -n "$healthy" ] || fail "the gateway is not healthy: $(cat "$dir/health")"
cat "$dir/health"

status=$(tr '\t' ' ' <"/proc/$pid/status")
for line in "Uid: ${user%%:*} " "CapEff: 0000000000000000" "NoNewPrivs: 1"; do
	grep -q "^$line" <<<"$status" || fail "the process has not: $line"
done
! nsenter -t "$pid" -m touch "$root/etc/written" 2>/dev/null || fail "the files of the image can be written"

kill -TERM "$pid"
wait "$running" || fail "the gateway did not stop in order"
running=
echo "$image runs as $user, read only, was healthy and stopped in order"
