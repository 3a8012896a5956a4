#!/bin/sh
# Who has heard of a revocation? One server and three services in processes of
# their own: one with an index of all tokens, one that asks and keeps the answers,
# and one behind nginx, which asks the server each time. Run it from anywhere in
# the repository; it needs Go, curl and, for the third service, nginx. Everything
# lies in a temporary directory, and everything ends with the script.
set -eu
cd "$(dirname "$0")/../.."
dir=$(mktemp -d)
pids=
trap 'for p in $pids; do kill "$p" 2>/dev/null || :; done; wait; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM

say() { printf '\n== %s\n' "$*"; }
until_true() { # seconds command…
	left=$(($1 * 10)); shift
	until "$@" >/dev/null 2>&1; do
		left=$((left - 1))
		[ "$left" -gt 0 ] || { echo "this takes too long: $*" >&2; exit 1; }
		sleep 0.1
	done
}

say "The server"
go build -o "$dir/watchword" ./services/cmd/watchword
go build -o "$dir/example" ./tools/example
"$dir/watchword" serve --data "$dir/data" --listen 127.0.0.1:0 --nats-listen 127.0.0.1:0 --routes deploy/routes/dns.yaml >"$dir/server.log" 2>&1 &
pids=$!
until_true 60 grep -q '"msg":"ready"\|msg=ready' "$dir/server.log"
export WATCHWORD_ADMIN_FILE="$dir/data/admin.json"
member() { sed -n "s/.*\"$2\": *\"\([^\"]*\)\".*/\1/p" "$1"; }
server=$(member "$WATCHWORD_ADMIN_FILE" base_url)
account=$(member "$WATCHWORD_ADMIN_FILE" account_id)
zone=1f0c6b0f0a2b4c6d8e9f00112233aabb
echo "$server"

say "Three services: full over NATS, thin over HTTP, and one behind nginx"
start() { # name flags…
	name=$1; shift
	"$dir/watchword" enforcer enroll "$name" --region demo --credentials "$dir/$name.json" >"$dir/$name.enrolled"
	"$dir/example" -credentials "$dir/$name.json" -data "$dir/$name.index" -listen 127.0.0.1:0 "$@" >"$dir/$name.log" 2>&1 &
	pid=$!
	pids="$pids $pid"
	until_true 60 grep -q 'serving' "$dir/$name.log"
	address=$(sed -n 's/.*serving addr=\([0-9.:]*\).*/\1/p' "$dir/$name.log")
	echo "$name: $address"
}
start dns-full -mode full -feed nats
full=$address full_pid=$pid
start dns-thin -mode thin -feed http
thin=$address
front=
if command -v nginx >/dev/null; then
	"$dir/watchword" enforcer enroll dns-front --http-only --secret-file "$dir/front.key" >"$dir/front.enrolled"
	printf 'proxy_set_header Watchword-Enforcer-Key "%s";\n' "$(cat "$dir/front.key")" >"$dir/watchword.key"
	mkdir "$dir/nginx"
	sed "s|127.0.0.1:8420|${server#http://}|; s|127.0.0.1:9000|unix:$dir/service.sock|; s|listen 8080|listen 127.0.0.1:8431|; s|/etc/nginx/watchword.key|$dir/watchword.key|" deploy/nginx/watchword.conf >"$dir/site.conf"
	cat >"$dir/nginx.conf" <<END
daemon off; master_process off; pid $dir/nginx/pid; error_log $dir/nginx/error.log;
events {}
http {
	access_log off;
	client_body_temp_path $dir/nginx/body; proxy_temp_path $dir/nginx/proxy; fastcgi_temp_path $dir/nginx/fastcgi;
	uwsgi_temp_path $dir/nginx/uwsgi; scgi_temp_path $dir/nginx/scgi;
	server { listen unix:$dir/service.sock; location / { return 200 "the records, for token \$http_watchword_token_id\n"; } }
	include $dir/site.conf;
}
END
	nginx -c "$dir/nginx.conf" -e "$dir/nginx/error.log" 2>/dev/null &
	pids="$pids $!"
	front=127.0.0.1:8431
	until_true 20 curl -s "$front/" # whatever it answers
	echo "dns-front: $front, which is nginx"
else
	echo "there is no nginx here: two services must do"
fi

ask() {
	for at in $full $thin $front; do
		printf '%s  ' "$at"
		curl -s -o "$dir/answer" -w '%{http_code}  ' -H "Authorization: Bearer $secret" "$at/accounts/$account/zones/$zone/records" || :
		head -1 "$dir/answer" | tr -d '\r' | cut -c1-80
	done
}
make() {
	"$dir/watchword" token create --name demo --permission "DNS Read" --zone "$zone" --secret-file "$dir/secret.$1" >"$dir/made"
	secret=$(cat "$dir/secret.$1")
	id=$(sed -n 's/^id *//p' "$dir/made")
}

say "A token that may read a zone's records: all three let it pass"
make 1
until_true 20 curl -sf -o /dev/null -H "Authorization: Bearer $secret" "$full/accounts/$account/zones/$zone/records"
ask

say "watchword token revoke $id --wait"
"$dir/watchword" token revoke "$id" --wait
ask

say "dns-full dies, as if its machine had, and another token is revoked"
make 2
kill -9 "$full_pid"
"$dir/watchword" token revoke "$id" --wait --timeout 3s || echo "(exit code $?: not everywhere yet)"

say "What dns-full knows gets too old to answer by, and its lease ends: it is waited for no longer"
complete() { "$dir/watchword" token receipts "$id" -o json | grep -q '"complete":true'; }
until_true 100 complete
"$dir/watchword" token receipts "$id"
"$dir/watchword" enforcers list
