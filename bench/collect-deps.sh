#!/usr/bin/env bash
# bench/collect-deps.sh DIR: the libraries a build needs, as unpacked packages of this machine's distribution, for a machine that has a GPU but no
# package registry: copy DIR there and run bench/gpu.sh --deps DIR. At most 40 MB; Boost (the emulator's) and the benches' OpenBLAS are left out.
set -euo pipefail
[ $# = 1 ] || { sed -n '2,3p' "$0" | cut -c3-; exit 2; }
dir=$1
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
packages=(libgtest-dev libcli11-dev libfmt-dev libyaml-cpp-dev nlohmann-json3-dev librandom123-dev zlib1g-dev libbenchmark-dev)
# What the shared ones among them run with, whatever its version is called here.
for p in libfmt-dev libyaml-cpp-dev libbenchmark-dev zlib1g-dev; do
  mapfile -t -O "${#packages[@]}" packages < <(apt-cache depends "$p" | sed -n 's/^ *Depends: \(lib\(fmt\|yaml-cpp\|benchmark\)[0-9.]*[a-z]*\|zlib1g\)$/\1/p')
done
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
(cd "$room" && apt-get -o APT::Sandbox::User=root download -q "${packages[@]}" >/dev/null)
for deb in "$room"/*.deb; do dpkg-deb -x "$deb" "$dir"; done
rm -rf "$dir/usr/share/doc" "$dir/usr/share/man" "$dir/usr/share/lintian" "$dir/usr/src"
find "$dir" -name 'libyaml-cpp.a' -delete
# Links to absolute paths would leave the folder.
while read -r link; do ln -sfnr "$dir$(readlink "$link")" "$link"; done < <(find "$dir" -type l -lname '/*')
echo "$dir: $(du -sm "$dir" | cut -f1) MB, ${#packages[@]} packages"
[ "$(du -sm "$dir" | cut -f1)" -le 40 ] || { echo "collect-deps: more than 40 MB" >&2; exit 1; }
