#!/usr/bin/env bash
# The README's two commands on a minimal Debian with Python, make and git, in a clean clone.
#
#   debian.sh RELEASE FOLDER    (bookworm, trixie, forky; needs root and debootstrap; FOLDER is kept and reused)
#
# Mounts and processes are in separate namespaces, so that none remains when this script ends.
set -euo pipefail
if [ -z "${IN_NAMESPACE:-}" ]; then
  IN_NAMESPACE=1 exec unshare --mount --pid --fork --kill-child --mount-proc "$0" "$@"
fi
release=$1 root=$(realpath --canonicalize-missing "$2")
source=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)

if [ ! -e "$root/ready" ]; then
  echo "Installing a minimal Debian $release in $root"
  rm -rf --one-file-system "$root"  # of an interrupted installation
  mkdir -p "$root"
  # A release that debootstrap does not know uses the script of sid, and may be signed with a key this machine lacks.
  script=$release check=
  [ -e "/usr/share/debootstrap/scripts/$release" ] || script=sid check=--no-check-gpg
  debootstrap $check --variant=minbase --include=python3,python3-venv,make,git,ca-certificates \
    "$release" "$root" "" "$script" > "$root.log" || { tail -20 "$root.log"; exit 1; }
  touch "$root/ready"
fi

# What pip needs to reach the package registries: environment variables, settings, and the files that these name.
settings=()
while IFS= read -r setting; do settings+=("$setting"); done < <(env | grep -iE '^((PIP|UV|SSL_CERT)_[A-Z_]*|REQUESTS_CA_BUNDLE|[A-Z]*_PROXY)=' || true)
copy() { [ ! -f "$1" ] || install -D --mode=644 "$1" "$root$1"; }
configurations=(/etc/pip.conf /etc/xdg/pip/pip.conf "$HOME/.pip/pip.conf" "$HOME/.config/pip/pip.conf" "$HOME/.config/uv/uv.toml" /etc/uv/uv.toml)
for file in /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt "${configurations[@]}"; do copy "$file"; done
for path in $({ printf '%s\n' "${settings[@]}"; cat "${configurations[@]}" 2> /dev/null; } | grep -oE '/[^ :=,]+' || true); do
  copy "$path"
  # A folder of packages; not one that exists in the Debian, such as that of certificates.
  if [ -d "$path" ] && [ -z "$(ls -A "$root$path" 2> /dev/null)" ]; then
    mkdir -p "$root$path" && mount --bind "$path" "$root$path"
  fi
done

rm -rf "$root/src"
git clone --quiet "$source" "$root/src"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
for command in "make demo" "make test"; do
  echo "Debian $release, $(chroot "$root" python3 -V): $command"
  started=$SECONDS
  chroot "$root" /usr/bin/env -i HOME="$HOME" PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM="${TERM:-dumb}" "${settings[@]}" \
    sh -c "cd /src && $command" < /dev/null
  echo "Debian $release: $command took $((SECONDS - started)) s"
done
