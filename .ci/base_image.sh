#!/usr/bin/env bash
# Builds a local stand-in for the Dockerfile's base image, for machines that cannot pull it: Debian 12 from the package mirror,
# with this machine's CPython 3.11 under /usr/local.   usage: DOCKER_HOST=... base_image.sh [TAG]   (about 3 minutes)
set -euo pipefail
tag=${1:-$(sed -n 's/^ARG BASE=//p' "$(dirname "$0")/../Dockerfile")}
docker image inspect "$tag" >/dev/null 2>&1 && { echo "$tag is there"; exit 0; }
python=$(python3.11 -c 'import sys; print(sys.base_prefix)')
mirror=$(awk '/^URIs:/ {print $2; exit}' /etc/apt/sources.list.d/debian.sources)
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
debootstrap --variant=minbase --include=ca-certificates,libgomp1,libssl3,libffi8,libsqlite3-0,zlib1g,libbz2-1.0,liblzma5,libreadline8,libncursesw6,libuuid1 \
  bookworm "$root" "$mirror" >/dev/null
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/archives/*.deb "$root"/usr/share/{doc,info,locale,man} # as slim has it
tar -C "$python" --exclude=__pycache__ --exclude=lib/python3.11/test --exclude='lib/python3.11/site-packages/*' --exclude='lib/*.a' \
  -cf - bin/python3.11 lib include | tar -C "$root/usr/local" -xf -
cp -a "$python"/lib/python3.11/site-packages/{pip,setuptools} "$root/usr/local/lib/python3.11/site-packages/"
for meta in "$python"/lib/python3.11/site-packages/{pip,setuptools}-*; do cp -a "$meta" "$root/usr/local/lib/python3.11/site-packages/"; done
chroot "$root" sh -c 'cd /usr/local/bin; ldconfig; ln -sf python3.11 python3; ln -sf python3.11 python
printf "#!/usr/local/bin/python\nimport sys\nfrom pip._internal.cli.main import main\nsys.exit(main())\n" >pip; chmod +x pip; cp pip pip3'
chroot "$root" python -c 'import ssl, sqlite3, bz2, lzma, ctypes, zlib'
tar -C "$root" -c . | docker import -c 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' - "$tag"
