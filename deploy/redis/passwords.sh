#!/bin/sh
# Makes the passwords of the users in the access control lists, and writes the files of this
# folder with them: passwords.sh DIR. Passwords that are in DIR already are kept.
set -eu
from=$(dirname "$0")
mkdir -p "$1"
umask 077
edit=
for user in dsapp replica watcher; do
	file=$1/$user.password
	[ -s "$file" ] || openssl rand -hex 32 >"$file"
	password=$(cat "$file")
	hash=$(printf %s "$password" | openssl dgst -sha256 -r | cut -d ' ' -f 1)
	edit="$edit;s/@$user-sha256@/$hash/;s/@$user@/$password/"
done
for name in redis.conf users.acl sentinel.conf sentinel-users.acl; do
	sed "${edit#;}" "$from/$name" >"$1/$name"
done
