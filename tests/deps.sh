#!/bin/sh
# Installs what rbox, its tests and its benchmarks use on Debian 12, and a Go
# toolchain where there is none. Does nothing, fast, when nothing is missing.
set -eu

rbox="uidmap slirp4netns passt fuse-overlayfs"
tests="busybox-static docker-registry skopeo attr bindfs apache2-utils ca-certificates curl xz-utils zstd"
bench="crun podman bubblewrap iperf3 iproute2"
# The guest that tests run in (tests/vm) is made and run on amd64 only.
guest=
if [ "$(dpkg --print-architecture)" = amd64 ]; then guest="qemu-system-x86 mmdebstrap e2fsprogs"; fi

missing=
# shellcheck disable=SC2086 # the lists are words
for line in $(dpkg-query -W -f '${Package}=${db:Status-Status}\n' $rbox $tests $bench $guest 2>/dev/null); do
	case $line in *=installed) have="${have-} ${line%=*} " ;; esac
done
for p in $rbox $tests $bench $guest; do
	case " ${have-} " in *" $p "*) ;; *) missing="$missing $p" ;; esac
done

as_root=
if [ "$(id -u)" != 0 ]; then
	as_root="sudo"
	# sudo without a password, or with somebody there to type it.
	if ! sudo -n true 2>/dev/null && ! { command -v sudo >/dev/null && [ -t 0 ]; }; then
		as_root=none
	fi
fi

if [ -n "$missing" ]; then
	if [ "$as_root" = none ]; then
		echo "rbox: these packages are missing, and this user cannot install them" >&2
		echo "rbox: hint: as root: apt-get install --no-install-recommends$missing" >&2
		exit 1
	fi
	$as_root apt-get update -q
	# shellcheck disable=SC2086
	$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
	# Tests start a registry of their own: the system's would only hold the port.
	if [ -d /run/systemd/system ]; then
		case $missing in
		*docker-registry*) $as_root systemctl disable --now docker-registry.service || true ;;
		esac
	fi
fi

# rbox wants Go 1.26. Any go from 1.21 on fetches that itself; without one, the
# same toolchain module comes from the same proxy.
case $("${GO:-go}" version 2>/dev/null) in
"go version go1."[01]* | "go version go1.20"* | "") ;;
*) exit 0 ;;
esac
want=$(sed -n 's/^go //p' go.mod)
case $(uname -m) in
x86_64) arch=amd64 ;;
aarch64) arch=arm64 ;;
*) echo "rbox: install Go $want or newer: https://go.dev/dl" >&2; exit 1 ;;
esac
proxy=${GOPROXY:-https://proxy.golang.org}
version=v0.0.1-go$want.linux-$arch
echo "fetching Go $want from ${proxy%%[,|]*} into .go/"
rm -rf .go .go.part
mkdir .go.part
curl -fsSL -o .go.part/go.zip "${proxy%%[,|]*}/golang.org/toolchain/@v/$version.zip"
(cd .go.part && busybox unzip -q go.zip)
tree=.go.part/golang.org/toolchain@$version
chmod +x "$tree"/bin/* "$tree"/pkg/tool/*/* # module archives carry no modes
mv "$tree" .go
rm -rf .go.part
