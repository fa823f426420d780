#!/usr/bin/env bash
# Lays out the image's root file system.
#
#   deploy/rootfs.sh BINARY FOLDER
#
# FOLDER/files gets the binary, the libraries it is linked with and the root
# certificates; FOLDER/owned what the unprivileged user of the image may write.
set -euo pipefail
binary=$1
folder=$2
root=$folder/files
mkdir -p "$root/usr/local/bin" "$root/etc/ssl/certs" "$root/tmp" "$folder/owned/data" "$folder/owned/run/clawgate"
install -m 0755 "$binary" "$root/usr/local/bin/clawgate"

# Every library and the loader, under the paths by which the binary names them.
ldd "$binary" | grep -o '/[^ )]*' | sort -u | while read -r library; do
  mkdir -p "$root$(dirname "$library")"
  cp -L "$library" "$root$library"
done

certificates=/etc/ssl/certs/ca-certificates.crt
if [ -f "$certificates" ]; then
  cp -L "$certificates" "$root$certificates"
else
  echo "rootfs.sh: $certificates is missing: TLS to vendors will not work in this image" >&2
  exit 1
fi

cat >"$root/etc/passwd" <<'END'
root:x:0:0:root:/:/sbin/nologin
clawgate:x:65532:65532:clawgate:/data:/sbin/nologin
END
cat >"$root/etc/group" <<'END'
root:x:0:
clawgate:x:65532:
END
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
# A folder without a file keeps its owner only in some builders.
touch "$folder/owned/data/.keep" "$folder/owned/run/clawgate/.keep"
chmod 1777 "$root/tmp"
chmod 0700 "$folder/owned/data" "$folder/owned/run/clawgate"
