#!/bin/sh
# Installs or updates onelb-router on this virtual machine, with systemd or
# OpenRC, from the files beside it:
#
#   onelb-router                    the static binary (make build)
#   ca.crt router.crt router.key    from: onelbctl router bootstrap
#   onelb-router.env                settings
#   onelb-router.service, onelb-router.initd
#
# It may run any number of times, also as an OpenNebula init script at each boot.
set -eu

from=${1:-$PWD}
conf=/etc/onelb-router

for file in onelb-router ca.crt router.crt router.key onelb-router.env onelb-router.service onelb-router.initd; do
    if [ ! -f "$from/$file" ]; then
        echo "install.sh: $from/$file is missing" >&2
        exit 1
    fi
done

# put MODE FILE TARGET replaces TARGET in one step: a running agent or a crash
# never sees half a file. What is there already stays as it is.
put() {
    if cmp -s "$from/$2" "$3"; then
        return
    fi
    changed=yes
    cp "$from/$2" "$3.new"
    chmod "$1" "$3.new"
    mv "$3.new" "$3"
}

if ! id onelb-router >/dev/null 2>&1; then
    if command -v useradd >/dev/null 2>&1; then
        useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin onelb-router
    else
        addgroup -S onelb-router
        adduser -S -D -H -h /nonexistent -s /sbin/nologin -G onelb-router onelb-router
    fi
fi

umask 077
mkdir -p "$conf"
chmod 0755 "$conf"
# The agent reads these again by itself: they need no restart. The key and its
# owner come first, so that it is readable when the certificate is there.
put 0600 router.key "$conf/router.key"
chown onelb-router:onelb-router "$conf/router.key"
put 0644 router.crt "$conf/router.crt"
put 0644 ca.crt "$conf/ca.crt"

changed=no
put 0755 onelb-router /usr/local/sbin/onelb-router
put 0644 onelb-router.env "$conf/onelb-router.env"

if [ -d /run/systemd/system ]; then
    put 0644 onelb-router.service /etc/systemd/system/onelb-router.service
    systemctl daemon-reload
    systemctl enable onelb-router.service
    [ "$changed" = no ] || systemctl restart onelb-router.service
    systemctl start onelb-router.service
elif [ -x /sbin/openrc-run ]; then
    put 0755 onelb-router.initd /etc/init.d/onelb-router
    rc-update add onelb-router default
    [ "$changed" = no ] || rc-service onelb-router --ifstarted restart
    rc-service onelb-router --ifstopped start
else
    echo "install.sh: neither systemd nor OpenRC runs here: start /usr/local/sbin/onelb-router in the way of this system" >&2
    exit 1
fi
