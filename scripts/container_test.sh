#!/usr/bin/env bash
# Build the Dockerfile and run the image, on a machine without Docker and without registries:
# debootstrap makes the base image, buildah builds and runs in a plain chroot. As root.
#
# pip inside the build gets this machine's pip settings (index, folders of wheels, constraints,
# certificates), so a mirror or a CPU build of torch on disk serves the image as it serves everything else here.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" -ne 0 ]; then
  echo "error: container_test.sh makes a base image with debootstrap, which needs root" >&2
  exit 2
fi

missing=()
for tool in buildah debootstrap; do
  command -v "$tool" >/dev/null || missing+=("$tool")
done
# On Ubuntu the keys of the Debian archive are a package of their own.
[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing+=(debian-archive-keyring)
if [ ${#missing[@]} -gt 0 ]; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

suite=bookworm
cache=${XDG_CACHE_HOME:-$HOME/.cache}/adapterbot-container
work=$(mktemp -d)
mkdir -p "$cache"
exec 9>"$cache/lock" # one at a time: they share the storage
flock 9

# A storage of its own: nobody's images are touched. overlay needs a kernel that lets root mount
# one here; vfs copies whole layers and works everywhere.
driver=overlay
mkdir "$work/lower" "$work/upper" "$work/index" "$work/merged"
if mount -t overlay overlay "$work/merged" \
  -o "lowerdir=$work/lower,upperdir=$work/upper,workdir=$work/index" 2>/dev/null; then
  umount "$work/merged"
else
  driver=vfs
fi

builder() {
  buildah --root "$cache/$driver" --runroot "$cache/$driver-run" --storage-driver "$driver" "$@"
}

finish() {
  # Everything in this storage is ours; a build that failed leaves its container mounted.
  builder rm --all >/dev/null 2>&1 || true
  umount "$work/root" 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT

step() { printf '\n== %s (%d s so far)\n' "$*" "$SECONDS"; }

# --- the base image, made once and kept beside the tree

base="localhost/adapterbot-base:$suite"
if ! builder inspect --type image "$base" >/dev/null 2>&1; then
  step "debootstrap $suite"
  # In memory: dpkg waits for the disk after every file otherwise.
  mkdir "$work/root"
  mount -t tmpfs tmpfs "$work/root" 2>/dev/null || true
  debootstrap --variant=minbase --include=ca-certificates,git,git-lfs,python3,python3-venv \
    "$suite" "$work/root" >"$work/debootstrap.log" || { tail -n 20 "$work/debootstrap.log"; exit 1; }
  rm -rf "$work/root/var/cache/apt/archives" "$work/root/var/lib/apt/lists"
  tar --create --file "$work/root.tar" --directory "$work/root" .
  umount "$work/root" 2>/dev/null || true
  container=$(builder from scratch)
  builder add --quiet "$container" "$work/root.tar" / >/dev/null
  builder commit --quiet "$container" "$base" >/dev/null
  builder rm "$container" >/dev/null
fi

# --- this machine's pip settings, as files to mount

python=$(scripts/find-python.sh)
"$python" -I - "$work" <<'PYTHON' >"$work/mounts"
"""Merge pip's settings, files and environment, into one file; print the paths to mount."""
import ast, configparser, os, subprocess, sys
from pathlib import Path

work = Path(sys.argv[1])
listed = subprocess.run(
    [sys.executable, "-I", "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
).stdout
settings = {}
for line in listed.splitlines():
    name, value = line.split("=", 1)
    section, _, key = name.rpartition(".")
    # The environment is listed first and wins, as it does in pip.
    if section in (":env:", "global", "install"):
        settings.setdefault(key, ast.literal_eval(value))
if certificates := settings.pop("cert", os.environ.get("SSL_CERT_FILE")):
    # Under a name of its own: installing ca-certificates replaces the usual one.
    settings["cert"] = "/run/host-certificates.pem"
    print(f"{certificates}:{settings['cert']}:ro")
for key in ("find-links", "index-url", "extra-index-url"):
    for place in settings.get(key, "").split():
        if (folder := Path(place.removeprefix("file://"))).is_dir():
            # The pages of an index link to files that lie beside it.
            folder = folder if key == "find-links" else folder.parent
            print(f"{folder}:{folder}:ro")
for place in settings.get("constraint", "").split():
    if Path(place).is_file():
        print(f"{place}:{place}:ro")
config = configparser.RawConfigParser()
config["global"] = settings
with (work / "pip.conf").open("w") as file:
    config.write(file)
print(f"{work / 'pip.conf'}:/etc/pip.conf:ro")
PYTHON
volumes=()
while read -r mount; do volumes+=(--volume "$mount"); done <"$work/mounts"

# --- build and run

image=localhost/adapterbot:test
step "buildah build"
builder bud --isolation chroot --layers "${volumes[@]}" \
  --build-arg "BASE_IMAGE=$base" --build-arg EXTRAS=eval --tag "$image" . >"$work/build.log" 2>&1 \
  || { tail -n 30 "$work/build.log"; exit 1; }

container=$(builder from "$image")
inside() { builder run --isolation chroot "$container" -- "$@"; }

step "the user is not root and owns nothing of the program"
test "$(inside id -u)" = 1001
inside sh -c '! test -w /opt/adapterbot && ! test -w /etc'

step "adapterbot doctor"
inside adapterbot --version
inside adapterbot doctor

step "what the action does in it: an isolated interpreter finds everything"
inside /opt/adapterbot/bin/python -I -c 'import adapterbot.cli, torch, transformers'

step "done"
