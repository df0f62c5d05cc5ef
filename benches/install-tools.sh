#!/usr/bin/env bash
# Installs what `make bench` needs beyond Rust and the tools of the checks, where it is missing: nginx to compare with,
# wrk for the load, openssl for a certificate. On Debian and its kin; elsewhere it says what to install by hand.
set -euo pipefail
cd "$(dirname "$0")/.."

# Debian keeps nginx where only root looks.
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
# The program is wanted, not the service that comes with it.
if [ -z "$had_nginx" ] && [ -d /run/systemd/system ]; then
  $sudo systemctl disable --now nginx
fi
