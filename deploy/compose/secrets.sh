#!/bin/sh
# Makes the secrets that compose.yaml names, each a file of its own; what is there stays as it is.
# The folder is for you alone; its files are readable, because containers have users of their own.
set -eu
folder=$(dirname "$0")/secrets
umask 077
mkdir -p "$folder"
chmod 700 "$folder"
made() {
    [ -e "$folder/$1" ] || { cat >"$folder/$1.new" && mv "$folder/$1.new" "$folder/$1"; }
    chmod 444 "$folder/$1"
}
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

for name in database_password admin_password metrics_token grafana_password \
    s3_access_key s3_secret_key secret_key django_secret_key; do
    random | made "$name"
done
printf 'postgresql://flowledger:%s@database:5432/flowledger' "$(cat "$folder/database_password")" |
    made database_uri
printf '{"identities": [{"name": "flowledger", "credentials": [{"accessKey": "%s", "secretKey": "%s"}], "actions": ["Admin"]}]}' \
    "$(cat "$folder/s3_access_key")" "$(cat "$folder/s3_secret_key")" | made s3_config
printf 'http://127.0.0.1:9/put-the-address-of-your-slack-webhook-into-this-file' | made slack_webhook_url
echo "$folder is complete. Put the address of your Slack webhook into $folder/slack_webhook_url."
