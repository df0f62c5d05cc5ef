#!/usr/bin/env bash
# Installs what `make bench` needs beyond the tools of the checks, if it is missing: nginx to compare with, wrk as the load
# generator, openssl for a certificate. It works on Debian-based distributions; on other systems it lists what to install.
set -euo pipefail
cd "$(dirname "$0")/.."

# Debian installs nginx in /usr/sbin, which may be missing from PATH.
PATH=$PATH:/usr/sbin
missing=()
for program in nginx wrk openssl; do
  command -v "$program" >/dev/null 2>&1 || missing+=("$program")
done
[ ${#missing[@]} -gt 0 ] || exit 0
if ! command -v apt-get >/dev/null 2>&1; then
  echo "install these by hand, then run this again: ${missing[*]}" >&2
  exit 1
fi
sudo=
[ "$(id -u)" -eq 0 ] || sudo=sudo
$sudo apt-get update -q
had_nginx=$(command -v nginx || true)
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
# The package's service is not started, only the program is used.
if [ -z "$had_nginx" ] && [ -d /run/systemd/system ]; then
  $sudo systemctl disable --now nginx
fi
