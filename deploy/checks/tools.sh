#!/bin/sh
# Installs what the checks of deploy/ need from Debian, as root where there is apt; says in one
# sentence what is missing otherwise, and the checks that need it are skipped, or fail in CI.
missing=
for package in "$@"; do
    case $package in
    prometheus) tool=promtool ;;
    prometheus-alertmanager) tool=amtool ;;
    systemd) tool=systemd-analyze ;;
    *) tool=$package ;;
    esac
    command -v "$tool" >/dev/null || missing="$missing $package"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq -o DPkg::Lock::Timeout=300 update >/dev/null 2>&1
    apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends $missing >/dev/null 2>&1 && exit 0
fi
echo "The checks of deploy/ that need$missing cannot run: apt-get install$missing" >&2
exit 0
