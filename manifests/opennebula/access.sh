#!/bin/sh
# Makes the OpenNebula user of one cluster with the least rights that are enough:
# USE on the networks it takes addresses from, nothing else. What it reserves
# from them is its own. Run as oneadmin; it may run again.
#
#   ./access.sh USER GROUP NETWORK...
#   ./access.sh k8s-lab kubernetes private public
#
# LEASES=N in the environment also limits how many addresses of each network the
# user may have, reservations and NICs of its VMs together.
#
# The nodes' VMs must belong to this user, or the user needs USE on them:
#   oneacl create "#<user id> VM/#<vm id> USE"
set -eu

if [ $# -lt 3 ]; then
    echo "usage: $0 USER GROUP NETWORK..." >&2
    exit 2
fi
user=$1 group=$2
shift 2

# id_of OBJECT NAME prints the numeric ID.
id_of() {
    "$1" show "$2" | sed -n 's/^ID *: *//p'
}

if ! onegroup show "$group" >/dev/null 2>&1; then
    onegroup create "$group"
    # A new group is in the default VDC, which gives USE on every network.
    onevdc delgroup 0 "$group"
fi
if ! oneuser show "$user" >/dev/null 2>&1; then
    password=$(head -c 24 /dev/urandom | base64 | tr -d '/+=')
    oneuser create "$user" "$password"
    oneuser chgrp "$user" "$group"
    echo "credential for the Secret onelb-cloud-config, key one_auth: $user:$password"
fi

uid=$(id_of oneuser "$user")
for network in "$@"; do
    rule="#$uid NET/#$(id_of onevnet "$network") USE"
    # oneacl says so when the rule is there already.
    oneacl create "$rule" || echo "not made: $rule"
    if [ -n "${LEASES:-}" ]; then
        quota=$(mktemp)
        echo "NETWORK=[ID=\"$(id_of onevnet "$network")\",LEASES=\"$LEASES\"]" >"$quota"
        oneuser quota "$user" "$quota"
        rm -f "$quota"
    fi
done
