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
# never sees half a file.
put() {
    cp "$from/$2" "$3.new"
    chmod "$1" "$3.new"
    mv "$3.new" "$3"
}

umask 077
mkdir -p "$conf"
put 0755 onelb-router /usr/local/sbin/onelb-router
put 0644 ca.crt "$conf/ca.crt"
put 0644 router.crt "$conf/router.crt"
put 0600 router.key "$conf/router.key"
put 0644 onelb-router.env "$conf/onelb-router.env"

if [ -d /run/systemd/system ]; then
    put 0644 onelb-router.service /etc/systemd/system/onelb-router.service
    systemctl daemon-reload
    systemctl enable onelb-router.service
    systemctl restart onelb-router.service
elif [ -x /sbin/openrc-run ]; then
    if ! id onelb-router >/dev/null 2>&1; then
        addgroup -S onelb-router
        adduser -S -D -H -h /nonexistent -s /sbin/nologin -G onelb-router onelb-router
    fi
    chmod 0755 "$conf"
    chown onelb-router:onelb-router "$conf/router.key"
    put 0755 onelb-router.initd /etc/init.d/onelb-router
    rc-update add onelb-router default
    rc-service onelb-router restart
else
    echo "install.sh: neither systemd nor OpenRC runs here: start /usr/local/sbin/onelb-router in the way of this system" >&2
    exit 1
fi
