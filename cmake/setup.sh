# What a fresh machine needs before the programs run: system packages, a Python environment, a build.
# Sourced by ./runexp and ./runtests with RUQ_HOME set. Each step says what it does and is skipped in
# an instant when there is nothing to do.

say() { printf 'ruquant: %s\n' "$*" >&2; }

# install_packages FILE: Debian packages, one a line; '#' begins a comment.
install_packages() {
  command -v dpkg-query >/dev/null || { say "no dpkg here; packages needed: $1"; return 0; }
  local wanted missing=() name
  wanted=$(sed 's/#.*//' "$1")
  for name in $wanted; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null) == installed ]] || missing+=("$name")
  done
  ((${#missing[@]})) || return 0
  local root=()
  ((EUID == 0)) || root=(sudo)
  say "installing system packages: ${missing[*]}"
  "${root[@]}" apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive "${root[@]}" apt-get install -y -qq --no-install-recommends \
    "${missing[@]}" >&2 </dev/null
}

# prepare_python [FILE...]: a private environment with what data/ and analysis/ require, and with
# what the FILEs (of the tree, in pip's form) ask for beside; sets RUQ_PYTHON.
prepare_python() {
  [[ -n ${RUQ_PYTHON:-} ]] && return 0
  local folder=$RUQ_CACHE/venv stamp wanted file
  wanted=$(cat "$RUQ_HOME"/data/requirements.txt "$RUQ_HOME"/analysis/requirements.txt | cksum)
  stamp=$(cat "$folder/ready" 2>/dev/null || true)
  if [[ $stamp != "$wanted" ]]; then
    say "making the Python environment in $folder"
    local python=/usr/bin/python3
    [[ -x $python ]] || python=python3
    "$python" -m venv --clear "$folder" >&2
    pip_install -r "$RUQ_HOME/data/requirements.txt" -r "$RUQ_HOME/analysis/requirements.txt"
    echo "$wanted" >"$folder/ready"
  fi
  for file in "$@"; do
    stamp=$folder/ready-${file//\//-}
    wanted=$(cksum <"$RUQ_HOME/$file")
    [[ $(cat "$stamp" 2>/dev/null || true) != "$wanted" ]] || continue
    say "adding $file to the Python environment"
    pip_install -r "$RUQ_HOME/$file"
    echo "$wanted" >"$stamp"
  done
  export RUQ_PYTHON=$folder/bin/python
}

pip_install() { "$RUQ_CACHE/venv/bin/pip" install -q --disable-pip-version-check "$@" >&2; }

# build_targets TARGET...: configures the release preset once and builds.
build_targets() {
  local build=$RUQ_HOME/build/release
  if [[ ! -f $build/build.ninja ]]; then
    say "configuring the release build"
    command -v ccache >/dev/null && export RUQ_COMPILER_LAUNCHER=ccache
    (cd "$RUQ_HOME" && cmake --preset release) >"$RUQ_CACHE/configure.log" 2>&1 ||
      { cat "$RUQ_CACHE/configure.log" >&2; return 1; }
  fi
  [[ -x $build/experiments/runexp ]] || say "building: $* (minutes, the first time)"
  ninja -C "$build" "$@" >"$RUQ_CACHE/build.log" 2>&1 || { tail -n 60 "$RUQ_CACHE/build.log" >&2; return 1; }
}

export RUQ_HOME
export RUQ_CACHE=${RUQ_CACHE:-$RUQ_HOME/.cache}
mkdir -p "$RUQ_CACHE"
RUQ_REVISION=$(git -C "$RUQ_HOME" describe --always --dirty 2>/dev/null || echo unknown)
export RUQ_REVISION
