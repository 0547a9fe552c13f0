#!/bin/sh
# Builds p2pfs_VERSION_ARCH.deb into DIR or dist/, from this checkout and the packages in its node_modules. Nothing is fetched.
# Usage: build.sh [DIR]
# P2PFS_DEB_VERSION names another version than that of package.json, P2PFS_DEB_LEVEL how hard to compress (0 to 9), and
# DEBFULLNAME and DEBEMAIL who maintains it, as for all tools of Debian.
set -eu
out=$(readlink -m "${1:-$(dirname -- "$0")/../../dist}")
here=$(readlink -f "$(dirname -- "$0")")
project=${here%/contrib/debian}
cd "$project"
for tool in dpkg-deb dpkg-shlibdeps strip gzip; do
  command -v "$tool" >/dev/null || { echo "deb: $tool is missing: apt-get install dpkg-dev binutils" >&2 && exit 1; }
done
node=$project/node_modules/.bin/node
[ -x "$node" ] || { echo 'deb: dependencies are not installed; run: npm ci' >&2 && exit 1; }
version=${P2PFS_DEB_VERSION:-$("$node" -p 'require("./package.json").version')}
arch=$(dpkg --print-architecture)
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
root=$stage/root
lib=$root/usr/lib/p2pfs
doc=$root/usr/share/doc/p2pfs
umask 022
mkdir -p "$lib" "$doc" "$root/usr/bin" "$root/usr/lib/systemd/system" "$root/DEBIAN" "$stage/debian"

cp -r cli node protocol package.json "$lib"
"$node" "$here/production-packages.ts" "$lib" >"$stage/licences"
node_binary=$lib/node_modules/node/bin/node
find "$lib" -name '*.node' -exec strip --strip-unneeded {} +
strip --strip-unneeded "$node_binary"
find "$lib" -type f -exec chmod 644 {} +
chmod 755 "$lib/cli/p2pfs" "$lib/cli/overlay-init.sh" "$node_binary"
mkdir "$lib/node_modules/.bin"
ln -s ../node/bin/node "$lib/node_modules/.bin/node"
ln -s ../lib/p2pfs/cli/p2pfs "$root/usr/bin/p2pfs"
cp contrib/systemd/p2pfs.service "$root/usr/lib/systemd/system"

cp README.md "$doc"
for file in operating debugging regions api; do gzip -9n <"docs/$file.md" >"$doc/$file.md.gz"; done
cp -r contrib/prometheus contrib/grafana "$doc"
gzip -9n <CHANGELOG.md >"$doc/CHANGELOG.md.gz"
maintainer="${DEBFULLNAME:-p2pfs} <${DEBEMAIL:-noreply@github.com}>"
printf 'p2pfs (%s) unstable; urgency=medium\n\n  * See CHANGELOG.md.gz.\n\n -- %s  %s\n' \
  "$version" "$maintainer" "$(date -R -r CHANGELOG.md)" | gzip -9n >"$doc/changelog.gz"
install -Dm 644 "$here/lintian-overrides" "$root/usr/share/lintian/overrides/p2pfs"
cat "$here/copyright" "$stage/licences" >"$doc/copyright"
# The manual and completion come from the tables of the command line.
share=$root/usr/share
mkdir -p "$share/man/man1" "$share/bash-completion/completions" "$share/zsh/vendor-completions" "$share/fish/vendor_completions.d"
"$node" --disable-warning=ExperimentalWarning cli/write-man-page.ts >"$stage/p2pfs.1"
gzip -9n <"$stage/p2pfs.1" >"$share/man/man1/p2pfs.1.gz"
cli/p2pfs completion bash >"$share/bash-completion/completions/p2pfs"
cli/p2pfs completion zsh >"$share/zsh/vendor-completions/_p2pfs"
cli/p2pfs completion fish >"$share/fish/vendor_completions.d/p2pfs.fish"

printf 'Source: p2pfs\n\nPackage: p2pfs\nArchitecture: any\n' >"$stage/debian/control"
libraries=$(cd "$stage" && find "$lib" \( -name '*.node' -o -path '*/bin/node' \) -exec dpkg-shlibdeps -O --ignore-missing-info {} + 2>/dev/null)
size=$(du -k -s --apparent-size "$root" | cut -f1)
sed -e "s/@VERSION@/$version/" -e "s/@ARCH@/$arch/" -e "s/@MAINTAINER@/$maintainer/" -e "s/@SIZE@/$size/" -e "s/@LIBRARIES@/${libraries#shlibs:Depends=}/" \
  "$here/control" >"$root/DEBIAN/control"
for script in postinst prerm postrm; do install -m 755 "$here/$script" "$root/DEBIAN/$script"; done
(cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
mkdir -p "$out"
dpkg-deb --root-owner-group -Zxz "-z${P2PFS_DEB_LEVEL:-6}" --threads-max=2 --build "$root" "$out/p2pfs_${version}_$arch.deb" >&2
echo "$out/p2pfs_${version}_$arch.deb"
